"""Keras models, and the functions that make them."""

import gin
import tensorflow as tf


@gin.configurable
def my_model(observation_spec, num_actions, units=24):
    """A batch of observations in, a batch of num_actions values out."""
    observation = tf.keras.Input(observation_spec.shape)
    features = tf.keras.layers.Dense(units, "tanh")(observation)
    return tf.keras.Model(observation, tf.keras.layers.Dense(num_actions)(features))


@gin.configurable
def my_actor_critic(input_spec, num_parameters, units=24):
    """A batch of observations in; a batch of num_parameters and a batch of values out."""
    observation = tf.keras.Input(input_spec.shape)
    features = tf.keras.layers.Dense(units, "tanh")(observation)
    parameters = tf.keras.layers.Dense(num_parameters)(features)
    return tf.keras.Model(observation, (parameters, tf.keras.layers.Dense(1)(features)))
