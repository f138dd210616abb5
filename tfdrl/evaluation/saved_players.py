"""What plays: a run's agent as a checkpoint has it, or an exported policy."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from tfdrl.environments.batched import BatchedEnvironment, first_time_steps
from tfdrl.errors import ConfigurationError
from tfdrl.runtime import agent_factory
from tfdrl.runtime.compiled import act_function
from tfdrl.types import TimeSteps, map_specs

_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"


class Player(NamedTuple):
    """A policy as `evaluation.play` takes it.

    act            of `evaluation.act_function`
    initial_state  batch size -> policy state
    source         what was loaded, for people
    step           learner step of its parameters; -1 if unknown
    """

    act: Callable
    initial_state: Callable[[int], object]
    source: str
    step: int


def from_checkpoint(
    make_agent: Callable, environment: BatchedEnvironment, path: pathlib.Path, step: int
) -> Player:
    """The greedy policy of an agent with the parameters of a checkpoint.

    Only the policy is read: neither the optimizer nor another setting of training matters.

    Args:
      make_agent: the agent factory of the architecture.
      environment: gives the specs.
      path: prefix of the checkpoint's files.
      step: its learner step; -1 if unknown.

    Raises:
      ConfigurationError: the checkpoint cannot be read, or is of another network.
    """
    policy = agent_factory.make_agent(make_agent, environment).policy
    holder = tf.Module()
    holder._policy = policy  # the name under which TFAgent holds it
    root = tf.train.Checkpoint(agent=holder)
    try:
        problems = _differences(path, root, policy)
        if not problems:
            root.read(str(path)).expect_partial()
    except ValueError as error:
        problems = [_first_line(error)]  # of shapes
    except Exception as error:  # what damaged bytes raise depends on where the damage is
        raise ConfigurationError(
            f"the checkpoint {path} cannot be read: {_first_line(error)}"
        ) from error
    if problems:
        raise ConfigurationError(
            f"the checkpoint {path} is of another network than the configuration describes: "
            + "; ".join(problems)
        )
    about = f"checkpoint {path}" + (f" (learner step {step})" if step >= 0 else "")
    return Player(act_function(policy), policy.get_initial_state, about, step)


def from_saved_model(directory: pathlib.Path, environment: BatchedEnvironment) -> Player:
    """The policy that a run exported to root_dir/policy.

    Raises:
      ConfigurationError: there is none, it cannot be read, or it is for another environment.
    """
    if not (directory / "saved_model.pb").is_file():
        raise ConfigurationError(f"{directory} holds no exported policy (no saved_model.pb)")
    try:
        policy = tf.saved_model.load(str(directory))
    except Exception as error:  # as above
        raise ConfigurationError(
            f"the exported policy {directory} cannot be read: {_first_line(error)}"
        ) from error
    act = act_function(policy)
    try:
        # Not a step of the environment, whose seed would then mean other episodes.
        act(*_zeros(environment), policy.get_initial_state(1))
    except (ValueError, TypeError) as error:
        specs = agent_factory.specs_text(environment)
        raise ConfigurationError(
            f"the exported policy {directory} is not for this environment ({specs})"
        ) from error
    return Player(act, policy.get_initial_state, f"exported policy {directory}", -1)


def _zeros(environment: BatchedEnvironment) -> TimeSteps:
    observation = map_specs(
        lambda spec: np.zeros((1, *spec.shape), spec.dtype), environment.observation_spec
    )
    return first_time_steps(observation, num_envs=1)


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _differences(path: pathlib.Path, root: tf.train.Checkpoint, policy) -> list[str]:
    """Variables that only the checkpoint or only the policy has, in words.

    `read` compares shapes only: without this, a network with a layer less would load.
    """
    view = tf.train.CheckpointView(str(path))
    matched = view.match(root)
    found = {id(trackable) for trackable in matched.values()}
    lacking = [variable.name for variable in policy.variables() if id(variable) not in found]
    below = _descendants(view, [node for node, it in matched.items() if it is policy])
    nodes = {name: _node(view, name) for name in _variable_names(path)}
    surplus = [n for n, node in nodes.items() if node in below and node not in matched]
    problems = [f"the checkpoint has no {', '.join(lacking)}"] if lacking else []
    return problems + ([f"the agent has no {', '.join(surplus)}"] if surplus else [])


def _variable_names(path: pathlib.Path) -> list[str]:
    names = [name for name, _ in tf.train.list_variables(str(path))]
    return [name[: -len(_VALUE)] for name in names if name.endswith(_VALUE)]


def _node(view, name: str) -> int | None:
    """The node of a checkpoint's object graph that "agent/_q_network/kernel" leads to."""
    node = 0
    for part in name.split("/"):
        node = view.children(node).get(part.replace(".S", "/"))
        if node is None:
            return None
    return node


def _descendants(view, nodes: list[int]) -> set[int]:
    seen, waiting = set(), list(nodes)
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            waiting += view.children(node).values()
    return seen
