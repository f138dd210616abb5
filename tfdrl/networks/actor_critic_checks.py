"""Whether an actor-critic network, perhaps a user's own, fits the actions it is to choose."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import StepType

from tfdrl.errors import ConfigurationError

#: Odd sizes, so that a dimension in the wrong place shows.
_BATCH, _STEPS = 3, 2


def check_distribution(network, action_spec) -> None:
    """Calls a network as acting and as learning do, and checks what it returns.

    Args:
      network: as networks/actor_critic_networks.py describes; it is given zeros.
      action_spec: the one action that its distribution is of.

    Raises:
      ConfigurationError: its Categorical has another number of categories than the action has
        values, its distribution is of another event shape, type or batch shape, its value is not
        one number for each step, or it cannot be called with [B, ...] and with [B, T, ...].
    """
    flat = tf.nest.flatten(action_spec)
    if len(flat) != 1:
        raise ConfigurationError(
            f"an actor-critic network chooses one action, but the action spec is {action_spec}"
        )
    for outer, kind in (([_BATCH], "[B, ...]"), ([_BATCH, _STEPS], "[B, T, ...]")):
        about = f"the network {network.name}, given {kind} = {[*outer, '...']},".replace("'", "")
        distribution, value = _outputs(network, outer, about)
        _check_event(distribution, flat[0], about)
        _check_outer("distribution has the batch shape", distribution.batch_shape, outer, about)
        _check_outer("value has the shape", tf.convert_to_tensor(value).shape, outer, about)


@contextlib.contextmanager
def advice_on_arrays(action_spec) -> Iterator[None]:
    """Where TF-Agents' networks are built: says what to use for arrays of discrete actions.

    Raises:
      ConfigurationError: with that, and what they say.
    """
    try:
        yield
    except ValueError as error:
        specs = tf.nest.flatten(action_spec)
        if not any(spec.dtype.is_integer and spec.shape.rank for spec in specs):
            raise
        raise ConfigurationError(
            "the environment's action is an array of integers (MultiDiscrete), which VTraceAgent, "
            "NStepActorCriticAgent and PPO train, with @MlpPolicyNetwork if they need an actor; "
            f"what is named here does not take it: {error}"
        ) from error


def _outputs(network, outer: list[int], about: str):
    observation = tensor_spec.zero_spec_nest(network.input_tensor_spec, outer_dims=outer)
    try:
        results = network(
            observation,
            step_type=tf.fill(outer, StepType.FIRST),
            network_state=network.get_initial_state(_BATCH),
        )
    except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
        raise ConfigurationError(
            f"{about} fails: {error}; acting needs [B, ...], learning [B, T, ...]"
        ) from error
    (outputs, _) = results
    is_pair = isinstance(outputs, (tuple, list)) and len(outputs) == 2
    if not (is_pair and isinstance(outputs[0], tfp.distributions.Distribution)):
        kinds = ", ".join(type(o).__name__ for o in outputs) if is_pair else type(outputs).__name__
        raise ConfigurationError(
            f"{about} must return ((distribution, value), next_state), but its output is {kinds}"
        )
    return outputs


def _check_event(distribution, spec, about: str) -> None:
    is_product = isinstance(distribution, tfp.distributions.Independent)
    each = distribution.distribution if is_product else distribution
    if isinstance(each, tfp.distributions.Categorical) and spec.dtype.is_integer:
        logits = each.logits_parameter().shape[-1]
        actions = int(tf.reduce_max(spec.maximum)) + 1
        if logits != actions:
            raise ConfigurationError(
                f"{about} gives logits of the wrong size: {logits}, but there are {actions} "
                f"actions ({spec})"
            )
    if distribution.event_shape != spec.shape:
        raise ConfigurationError(
            f"{about} gives a {type(distribution).__name__} of the event shape "
            f"{distribution.event_shape.as_list()}, but an action has the shape "
            f"{spec.shape.as_list()}; tfp.distributions.Independent makes batch dimensions an event"
        )
    if distribution.dtype.is_integer != spec.dtype.is_integer:
        raise ConfigurationError(
            f"{about} gives a {type(distribution).__name__} over {distribution.dtype.name}, but "
            f"actions are {spec.dtype.name}"
        )


def _check_outer(what: str, shape: tf.TensorShape, outer: list[int], about: str) -> None:
    if shape.as_list() != outer:
        raise ConfigurationError(
            f"{about} must give one for each step, {outer}, but its {what} {shape.as_list()}"
        )
