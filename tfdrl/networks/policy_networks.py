"""A policy alone: an input in, a distribution over actions out, as PPO wants its actor."""

from __future__ import annotations

import gin
from tf_agents.networks import network

from tfdrl.networks import observations, torsos
from tfdrl.networks.actor_critic_heads import policy_head
from tfdrl.networks.outer_dims import merge_outer_dims, outer_dims, split_outer_dims


@gin.configurable
class MlpPolicyNetwork(network.Network):
    """Fully connected layers over any input, then a Categorical, a product of them or a Gaussian.

    Unlike TF-Agents' ActorDistributionNetwork it takes any observation, and arrays of integers of
    different ranges as actions. The Gaussian is not squashed: SAC needs TF-Agents' network.

    Args:
      input_spec: any nest of TensorSpecs.
      action_spec: one array of integers that start at 0, or of float32.
      layer_units: units of each hidden layer.
      activation: of the hidden layers.
      initial_std: standard deviation of a Gaussian policy before training, in units of the
        action.

    Raises:
      ConfigurationError: an unsupported action spec.
    """

    def __init__(
        self,
        input_spec,
        action_spec,
        layer_units: tuple = (64, 64),
        activation: str = "tanh",
        initial_std: float = 1.0,
        name: str = "MlpPolicyNetwork",
    ):
        super().__init__(input_spec, state_spec=(), name=name)
        self._torso = torsos.MlpTorso(layer_units, activation, name="torso")
        self._policy_head = policy_head(action_spec, initial_std)

    def call(self, observation, step_type=None, network_state=(), training=False):
        del step_type
        dims = outer_dims(observation, self.input_tensor_spec)
        merged = merge_outer_dims(observation, self.input_tensor_spec)
        leaves = observations.as_floats(merged, self.input_tensor_spec)
        features = split_outer_dims(self._torso(leaves, training=training), dims)
        return self._policy_head(features), network_state
