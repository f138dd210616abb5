"""A Keras model, and the function that makes it."""

import gin
import tensorflow as tf


@gin.configurable
def my_model(observation_spec, num_actions, units=24):
    """A batch of observations in, a batch of num_actions values out."""
    observation = tf.keras.Input(observation_spec.shape)
    features = tf.keras.layers.Dense(units, "tanh")(observation)
    return tf.keras.Model(observation, tf.keras.layers.Dense(num_actions)(features))
