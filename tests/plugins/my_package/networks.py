"""A TF-Agents network."""

import gin
import tensorflow as tf
from tf_agents.networks import network


@gin.configurable
class MyNetwork(network.Network):
    """One hidden layer, then one value for each action."""

    def __init__(self, observation_spec, action_spec, units=40, name="MyNetwork"):
        super().__init__(observation_spec, state_spec=(), name=name)
        self._hidden = tf.keras.layers.Dense(units, "relu")
        self._values = tf.keras.layers.Dense(action_spec.maximum - action_spec.minimum + 1)

    def call(self, observation, step_type=None, network_state=(), training=False):
        return self._values(self._hidden(observation)), network_state
