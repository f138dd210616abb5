"""TF-Agents' networks for continuous actions, called as gin files call networks here.

That is `network(observation_spec, action_spec)`; TF-Agents' critics and value networks take other
arguments. Those here take any observation; see networks/vector_networks.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import gin
import tensorflow as tf
from tf_agents.agents.ddpg import actor_network, critic_network
from tf_agents.networks import network, value_network

from tfdrl.networks.vector_networks import made_for_any


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
    return made_for_any(
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
    return made_for_any(
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
    return made_for_any(
        observation_spec,
        lambda spec: value_network.ValueNetwork(
            spec,
            fc_layer_params=tuple(layer_units),
            activation_fn=tf.keras.activations.get(activation),
        ),
    )
