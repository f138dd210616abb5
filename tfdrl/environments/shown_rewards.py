"""What wrappers may do to a task: evaluation shows its rewards, and the policy meets it anew."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator

import gymnasium
from gymnasium import wrappers

from tfdrl.errors import ConfigurationError

_LOG = logging.getLogger(__name__)

#: Wrappers with statistics of their own in every process, and what is to be used instead.
_WITH_STATISTICS = {
    wrappers.NormalizeObservation: (
        "set normalization.observations = True, whose statistics are part of the parameters"
    ),
    wrappers.NormalizeReward: (
        "set normalization.returns = True, or name it in gym_environment.training_wrappers"
    ),
}


def check_task(task: gymnasium.Env, inner: gymnasium.Env, is_shown: bool) -> None:
    """Refuses wrappers with statistics; warns of those that change the rewards that are shown.

    Args:
      task: the environment with `gym_environment.wrappers` around it.
      inner: the environment without them.
      is_shown: whether it is for evaluation.

    Raises:
      ConfigurationError: a wrapper normalises by what its process has seen.
    """
    for env in _layers(task):
        for kind, cure in _WITH_STATISTICS.items():
            if isinstance(env, kind):
                raise _refusal(kind, cure)
    for env in _layers(task):
        if env is inner:
            break
        if is_shown and isinstance(env, gymnasium.RewardWrapper):
            _warn_of_rewards(type(env).__name__)


def check_training(trained: gymnasium.Env, task: gymnasium.Env) -> None:
    """Refuses wrappers of training that make another task of it.

    Raises:
      ConfigurationError: a wrapper changes the spaces, or normalises observations, which
        evaluation would show as they are.
    """
    for env in _layers(trained):
        if isinstance(env, wrappers.NormalizeObservation):
            raise _refusal(type(env), _WITH_STATISTICS[wrappers.NormalizeObservation])
    for what in ("observation_space", "action_space"):
        mine, theirs = getattr(trained, what), getattr(task, what)
        if mine != theirs:
            raise ConfigurationError(
                f"gym_environment.training_wrappers change the {what} from {theirs} to {mine}, "
                "but evaluation, which goes without them, must have the same: name what does "
                "that in gym_environment.wrappers"
            )


def _refusal(kind: type, cure: str) -> ConfigurationError:
    return ConfigurationError(
        f"{kind.__name__} keeps statistics of its own in every process: an evaluation would start "
        f"from none, and the exported policy has none; {cure}"
    )


def _layers(env: gymnasium.Env) -> Iterator[gymnasium.Env]:
    """An environment and those that it wraps, from the outside."""
    while True:
        yield env
        if not isinstance(env, gymnasium.Wrapper):
            return
        env = env.env


@functools.cache  # once in a process
def _warn_of_rewards(name: str) -> None:
    _LOG.warning(
        "evaluation shows the rewards that %s makes, since gym_environment.wrappers has it; to "
        "train by them and show the task's own, name it in gym_environment.training_wrappers",
        name,
    )
