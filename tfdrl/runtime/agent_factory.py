"""Environment -> specs -> agent: how every role builds the same agent from the same gin file."""

from __future__ import annotations

import logging
from collections.abc import Callable

import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.policies import epsilon_greedy_policy

from tfdrl import environments_tf
from tfdrl.agents import masked_network
from tfdrl.agents.normalization import normalization
from tfdrl.agents.q_policy import EpsilonGreedyQPolicy
from tfdrl.agents.recurrent_q_policy import RecurrentQPolicy
from tfdrl.environments.batched import BatchedEnvironment
from tfdrl.errors import ConfigurationError
from tfdrl.networks.precision import tell_of_slow_bfloat16, torsos_in
from tfdrl.runtime.autograph import leave_unconverted
from tfdrl.runtime.eager_tensors import make_without_place_for_attributes
from tfdrl.runtime.user_frames import own_frame
from tfdrl.types import ArraySpec

#: Policies that take some actions whatever their network says.
_RANDOM = (EpsilonGreedyQPolicy, RecurrentQPolicy, epsilon_greedy_policy.EpsilonGreedyPolicy)
#: What Gymnasium and PettingZoo call the mask.
_MASK = "action_mask"


def make_agent(
    factory: Callable, environment: BatchedEnvironment, compute_dtype: str = "float32"
) -> tf_agent.TFAgent:
    """Builds and initialises the agent for an environment.

    Args:
      factory: `factory(time_step_spec, action_spec, train_step_counter=)`: a TFAgent class whose
        other arguments gin binds, or any function of these arguments.
      environment: gives the specs. With an action mask, the factory is also given the argument
        `observation_and_action_constraint_splitter`, unless gin binds it. A part of the observation
        that is called "action_mask" is one, if it has a number for each value of the action.
      compute_dtype: in which its networks' torsos calculate, as `precision.torsos_in` takes it.

    Raises:
      ConfigurationError: the factory returns no TFAgent, lacks settings, refuses the specs, or
        takes no masks
        where the environment has some; it builds no torso that could calculate in
        `compute_dtype`; or Keras's global policy is not float32.
    """
    _check_precision()
    leave_unconverted()
    make_without_place_for_attributes()
    time_step_spec = environments_tf.time_step_spec(environment.observation_spec)
    action_spec = environments_tf.to_tf_specs(environment.action_spec)
    name = getattr(factory, "__name__", factory)
    splitter = _splitter(environment)
    counter = tf.Variable(0, dtype=tf.int64, trainable=False, name="train_step")
    try:
        with torsos_in(compute_dtype) as torsos:
            agent = factory(
                time_step_spec,
                action_spec,
                train_step_counter=counter,
                **masked_network.splitter_argument(factory, splitter),
            )
    except (ValueError, TypeError) as error:
        frame = own_frame(error)
        raise ConfigurationError(
            f"the agent {name} cannot be built for this environment: {error}"
            + (f" (at {frame})" if frame else "")
        ) from error
    except RuntimeError as error:
        if "Required bindings for" not in str(error):
            raise
        raise ConfigurationError(f"the agent {name} cannot be built: {error}") from error
    if not isinstance(agent, tf_agent.TFAgent):
        raise ConfigurationError(f"the agent {name} made a {type(agent).__name__}, not a TFAgent")
    if compute_dtype != "float32" and not torsos.layers:
        raise ConfigurationError(
            f"compute_dtype = {compute_dtype!r} is for the torsos of tfdrl's networks, and the "
            f"agent {name} has none: give layers of your own dtype='mixed_bfloat16', and their "
            "last one float32, or leave compute_dtype at 'float32'"
        )
    if compute_dtype == "bfloat16":
        tell_of_slow_bfloat16()
    if isinstance(splitter, masked_network.ShownMask):
        _tell_of_a_mask_without_setting(agent)
    agent = normalization(agent)
    agent.initialize()
    return agent


def _splitter(environment: BatchedEnvironment) -> Callable | None:
    """Of the mask that a setting names, or that the environment calls as Gymnasium's do."""
    key = getattr(environment, "action_mask", None)
    if key is not None:
        return masked_network.splitter_of(key)
    specs, action = environment.observation_spec, environment.action_spec
    mask = specs.get(_MASK) if isinstance(specs, dict) else None
    if not (isinstance(mask, ArraySpec) and isinstance(action, ArraySpec) and action.is_discrete):
        return None
    is_mask = mask.shape == (sum(action.element_values),) and mask.dtype.kind in "biu"
    return masked_network.ShownMask(_MASK) if is_mask else None


def _tell_of_a_mask_without_setting(agent) -> None:
    """Whether it is obeyed: always, or it is refused, where actions are drawn at random.

    A network of the user's own may obey it by itself, so without random actions there is no more
    than a warning.
    """
    name, setting = type(agent).__name__, "gym_environment.action_mask (or py_environment's)"
    found = f"the observation's part {_MASK!r} has a number for each value of the action"
    if masked_network.obeys_mask(agent):
        logging.warning(
            "%s: %s takes no action where it is 0, and networks see it, too. %s = %r hides it from "
            "them; if any action may be taken, call the part another name",
            *(found, name, setting, _MASK),
        )
        return
    text = (
        f"{found}, but {name} takes no masks, so it may take any action; use an agent that does "
        f"(docs/action_masks.md), and {setting} = {_MASK!r}"
    )
    if isinstance(agent.collect_policy, _RANDOM):
        raise ConfigurationError(f"{text}. If any action may be taken, call the part another name")
    logging.warning("%s", text)


def _check_precision() -> None:
    policy = tf.keras.mixed_precision.global_policy()
    if policy.compute_dtype != "float32":
        raise ConfigurationError(
            f"Keras's global policy is {policy.name}: networks would calculate in "
            f"{policy.compute_dtype}, but losses are in float32 and gradients are not scaled; "
            "leave it at float32 and set the learner's compute_dtype = 'bfloat16', or give single "
            "layers of a model of your own a dtype, and its last one float32"
        )


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
