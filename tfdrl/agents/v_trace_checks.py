"""What the agent of V-trace refuses, and the specs of the behaviour policy's parameters."""

from __future__ import annotations

import tensorflow as tf
from tf_agents.trajectories import StepType
from tf_agents.utils import nest_utils

from tfdrl.agents import actor_critic_policy as acp
from tfdrl.errors import ConfigurationError


def parameter_specs(network, action_spec):
    """Specs of the behaviour's parameters, without batch dimension."""
    batch = action_spec.shape.num_elements() + 1  # no parameter without it has this size
    zeros = tf.nest.map_structure(
        lambda spec: tf.zeros([batch, *spec.shape], spec.dtype),
        (network.input_tensor_spec, network.state_spec),
    )
    (distribution, _), _ = network(
        zeros[0], step_type=tf.fill([batch], StepType.FIRST), network_state=zeros[1]
    )
    found = acp.parameters(distribution)
    for path, tensor in nest_utils.flatten_with_joined_paths(found):
        if tensor.shape[:1] != [batch]:
            raise ConfigurationError(
                f"the network {network.name}: {path} has the shape {tensor.shape.as_list()}, "
                "not [B, ...]: each step has parameters of its own; use tf.broadcast_to"
            )
    return tf.nest.map_structure(lambda leaf: tf.TensorSpec(leaf.shape[1:], leaf.dtype), found)


def check_choice(name: str, value: str, choices) -> None:
    """Raises ConfigurationError unless `value` is one of `choices`."""
    if value not in choices:
        raise ConfigurationError(
            f"VTraceAgent.{name} = {value!r} is unknown; use one of {', '.join(choices)}"
        )


def check_factors(reward_scale_factor: float, kl_cost: float) -> None:
    """Raises ConfigurationError for a scale that is not positive, or a negative cost."""
    if not reward_scale_factor > 0:
        raise ConfigurationError(
            f"VTraceAgent.reward_scale_factor = {reward_scale_factor} must be positive"
        )
    if not kl_cost >= 0:
        raise ConfigurationError(
            f"VTraceAgent.kl_cost = {kl_cost} must be 0 or more: the policy would be driven away "
            "from the one that acted"
        )


def check_clips(rho_bar, c_bar, pg_rho_bar, lambda_) -> None:
    """Raises ConfigurationError for clips that section 4.1 does not allow."""
    values = {"rho_bar": rho_bar, "c_bar": c_bar, "pg_rho_bar": pg_rho_bar}
    for name, value in values.items():
        if value is not None and not value > 0:
            raise ConfigurationError(
                f"VTraceAgent.{name} = {value} must be positive, or None for no clipping"
            )
    if rho_bar is not None and (c_bar is None or rho_bar < c_bar):
        raise ConfigurationError(
            f"VTraceAgent.rho_bar = {rho_bar} is below c_bar = {c_bar}: V-trace needs "
            "rho_bar >= c_bar (Espeholt 2018, section 4.1); lower c_bar or raise rho_bar"
        )
    if not 0.0 <= lambda_ <= 1.0:
        raise ConfigurationError(f"VTraceAgent.lambda_ = {lambda_} must be between 0 and 1")
