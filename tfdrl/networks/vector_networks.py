"""Networks of one vector of floats, as TF-Agents has them, for any observation.

TF-Agents' networks take a state's number for an amount, and bytes for numbers up to 255.
"""

from __future__ import annotations

from collections.abc import Callable

import gin
import tensorflow as tf
from tf_agents.networks import network as tfa_network

from tfdrl.networks.observations import as_vector, vector_size
from tfdrl.networks.outer_dims import merge_outer_dims, outer_dims, split_outer_dims


@gin.configurable
def on_vector(
    observation_spec, action_spec, network: Callable = gin.REQUIRED
) -> tfa_network.Network:
    """A network that sees any observation as one vector, as all of tfdrl see it.

    Args:
      observation_spec: any nest of TensorSpecs.
      action_spec: as the network takes it.
      network: `network(observation_spec, action_spec)`, such as TF-Agents' QNetwork or
        ActorDistributionNetwork.
    """
    return made_for_any(observation_spec, lambda spec: network(spec, action_spec))


def made_for_any(observation_spec, make: Callable, action_spec=None) -> tfa_network.Network:
    """`make(vector_spec)`, with what makes a vector of the observation if it is none."""
    flat = tf.nest.flatten(observation_spec)
    is_vector = not tf.nest.is_nested(observation_spec)
    is_vector = is_vector and flat[0].shape.rank == 1 and flat[0].dtype == tf.float32
    if is_vector:
        return make(flat[0])
    if action_spec is None:
        return OnVector(observation_spec, make)
    return OnVector((observation_spec, action_spec), make, has_action=True)


class OnVector(tfa_network.Network):
    """A network of one vector, given any observation; see networks/observations.py.

    Args:
      input_tensor_spec: of an observation; with `has_action`, of (observation, action).
      make: `make(vector_spec)` -> the network, of the vector or of (vector, action).
      has_action: whether there is an action beside the observation.
    """

    def __init__(self, input_tensor_spec, make: Callable, has_action=False, name="OnVector"):
        self._observation_spec = input_tensor_spec[0] if has_action else input_tensor_spec
        size = vector_size(self._observation_spec)
        inner = make(tf.TensorSpec([size], tf.float32, "observation"))
        super().__init__(input_tensor_spec, inner.state_spec, name)
        self._network, self._has_action = inner, has_action

    def call(self, inputs, step_type=None, network_state=(), training=False):
        observation = inputs[0] if self._has_action else inputs
        specs = self._observation_spec
        vector = as_vector(merge_outer_dims(observation, specs), specs)
        vector = split_outer_dims(vector, outer_dims(observation, specs))
        return self._network(
            (vector, inputs[1]) if self._has_action else vector,
            step_type=step_type,
            network_state=network_state,
            training=training,
        )
