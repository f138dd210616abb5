"""TF-Agents' networks for continuous actions, called as gin files call networks here.

That is `network(observation_spec, action_spec)`; TF-Agents' critics and value networks take other
arguments. Its `ActorNetwork` and `ActorDistributionNetwork` could be named as they are, but want
one vector of floats; those here take any observation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gin
import tensorflow as tf
from tf_agents.agents.ddpg import actor_network, critic_network
from tf_agents.networks import network, value_network

from tfdrl.networks.observations import as_vector, vector_size
from tfdrl.networks.outer_dims import merge_outer_dims, outer_dims, split_outer_dims


class OnVector(network.Network):
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


def _on_any(observation_spec, make: Callable, action_spec=None) -> network.Network:
    """`make(observation_spec)`, with what makes a vector of the observation if it is none."""
    flat = tf.nest.flatten(observation_spec)
    is_vector = len(flat) == 1 and flat[0].shape.rank == 1 and flat[0].dtype == tf.float32
    if is_vector:
        return make(flat[0])
    if action_spec is None:
        return OnVector(observation_spec, make)
    return OnVector((observation_spec, action_spec), make, has_action=True)


@gin.configurable
def mlp_actor(
    observation_spec, action_spec, layer_units: Sequence[int] = (300, 200), activation: str = "tanh"
) -> network.Network:
    """An action within its bounds (tanh); the sizes are Ape-X DPG's (appendix D).

    Args:
      observation_spec: any nest of TensorSpecs.
      action_spec: one array.
      layer_units: of the hidden layers.
      activation: Keras' name of their activation.
    """
    return _on_any(
        observation_spec,
        lambda spec: actor_network.ActorNetwork(
            spec,
            action_spec,
            fc_layer_params=tuple(layer_units),
            activation_fn=tf.keras.activations.get(activation),
        ),
    )


@gin.configurable
def mlp_critic(
    observation_spec,
    action_spec,
    observation_layer_units: Sequence[int] = (400,),
    joint_layer_units: Sequence[int] = (300,),
    activation: str = "tanh",
) -> network.Network:
    """q(s, a); the sizes are Ape-X DPG's (appendix D).

    Args:
      observation_spec: any nest of TensorSpecs.
      action_spec: one array.
      observation_layer_units: of hidden layers on the observation alone; () for none.
      joint_layer_units: of hidden layers on what follows from it and the action.
      activation: Keras' name of their activation.
    """
    return _on_any(
        observation_spec,
        lambda spec: critic_network.CriticNetwork(
            (spec, action_spec),
            observation_fc_layer_params=tuple(observation_layer_units) or None,
            joint_fc_layer_params=tuple(joint_layer_units) or None,
            activation_fn=tf.keras.activations.get(activation),
        ),
        action_spec,
    )


@gin.configurable
def mlp_value(
    observation_spec, action_spec=None, layer_units: Sequence[int] = (64, 64), activation="tanh"
) -> network.Network:
    """v(s), such as PPO's and REINFORCE's `value_net` / `value_network`.

    Args:
      observation_spec: of the environment.
      action_spec: not used; gin files name all networks alike.
      layer_units: of the hidden layers.
      activation: Keras' name of their activation.
    """
    del action_spec
    return _on_any(
        observation_spec,
        lambda spec: value_network.ValueNetwork(
            spec,
            fc_layer_params=tuple(layer_units),
            activation_fn=tf.keras.activations.get(activation),
        ),
    )
