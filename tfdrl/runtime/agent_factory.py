"""Environment -> specs -> agent: how every role builds the same agent from the same gin file."""

from __future__ import annotations

from collections.abc import Callable

import tensorflow as tf
from tf_agents.agents import tf_agent

from tfdrl import environments_tf
from tfdrl.environments.batched import BatchedEnvironment
from tfdrl.errors import ConfigurationError
from tfdrl.runtime.autograph import leave_unconverted


def make_agent(factory: Callable, environment: BatchedEnvironment) -> tf_agent.TFAgent:
    """Builds and initialises the agent for an environment.

    Args:
      factory: `factory(time_step_spec, action_spec, train_step_counter=)`: a TFAgent class whose
        other arguments gin binds, or any function of these arguments.
      environment: gives the specs.

    Raises:
      ConfigurationError: the factory returns no TFAgent, or refuses the specs.
    """
    leave_unconverted()
    time_step_spec = environments_tf.time_step_spec(environment.observation_spec)
    action_spec = environments_tf.to_tf_specs(environment.action_spec)
    name = getattr(factory, "__name__", factory)
    counter = tf.Variable(0, dtype=tf.int64, trainable=False, name="train_step")
    try:
        agent = factory(time_step_spec, action_spec, train_step_counter=counter)
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"the agent {name} cannot be built for this environment: {error}"
        ) from error
    if not isinstance(agent, tf_agent.TFAgent):
        raise ConfigurationError(f"the agent {name} made a {type(agent).__name__}, not a TFAgent")
    agent.initialize()
    return agent


def set_seed(seed: int) -> None:
    """Seeds everything random of this process: initial weights, TensorFlow's and numpy's."""
    tf.keras.utils.set_random_seed(seed)


def specs_text(environment: BatchedEnvironment) -> str:
    """The specs as text: two roles that print the same understand each other's data."""
    specs = {"observation": environment.observation_spec, "action": environment.action_spec}
    return "; ".join(
        f"{name} {tf.nest.map_structure(_spec_text, environments_tf.to_tf_specs(spec))}"
        for name, spec in specs.items()
    )


def _spec_text(spec) -> str:
    text = f"{spec.dtype.name}{spec.shape.as_list()}"
    is_count = spec.dtype.is_integer and spec.shape.rank < 2 and hasattr(spec, "minimum")
    return f"{text} of {spec.minimum}..{spec.maximum}" if is_count else text


def check_gamma(agent, gamma: float, where: str) -> None:
    """Raises ConfigurationError if the agent's discount is not the one of the n-step returns."""
    theirs = getattr(agent, "gamma", getattr(agent, "_gamma", None))
    if theirs is not None and abs(float(theirs) - gamma) > 1e-9:
        raise ConfigurationError(
            f"{where} = {gamma:g}, but {type(agent).__name__}.gamma = {float(theirs):g}: the "
            "n-step returns and the bootstrap must have one discount factor; bind both to a macro"
        )
