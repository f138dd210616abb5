"""What an episode can return, where an environment states the range of its rewards."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
from gymnasium.vector import VectorEnv
from gymnasium.wrappers import OrderEnforcing, PassiveEnvChecker, TimeLimit

#: Wrappers that pass rewards on; of another it is not known.
_LEAVE_REWARDS = (OrderEnforcing, PassiveEnvChecker, TimeLimit, gymnasium.ObservationWrapper)
#: Where nothing is stated.
ANY_RETURN = (-math.inf, math.inf)


def return_range(rewards: tuple[float, float], most_steps: float) -> tuple[float, float]:
    """The least and the greatest undiscounted return of an episode.

    Args:
      rewards: the least and the greatest reward of a step; infinite for none.
      most_steps: of an episode, which has at least one; infinite for no limit.
    """
    low, high = rewards
    return low * (most_steps if low < 0 else 1), high * (most_steps if high > 0 else 1)


def stated_by(vector_env: VectorEnv) -> tuple[float, float]:
    """What environments state that are stepped in this process, by `reward_range` and spec.

    Gymnasium itself asks for no such attribute any more; environments may have it all the same.
    """
    environments = getattr(vector_env.unwrapped, "envs", None)
    if not environments or not _shows_rewards_as_they_are(environments[0]):
        return ANY_RETURN
    try:
        low, high = map(float, environments[0].get_wrapper_attr("reward_range"))
    except (AttributeError, TypeError, ValueError):
        return ANY_RETURN
    if not low <= high:
        return ANY_RETURN
    return return_range((low, high), _most_steps(environments[0].spec))


def _shows_rewards_as_they_are(env: gymnasium.Env) -> bool:
    """Whether no wrapper may change a reward: the range is that of the innermost environment."""
    while isinstance(env, gymnasium.Wrapper):
        is_ours = type(env).__module__.startswith("tfdrl.")
        if not is_ours and not isinstance(env, _LEAVE_REWARDS):
            return False
        env = env.env
    return True


def _most_steps(spec: Any) -> float:
    return getattr(spec, "max_episode_steps", None) or math.inf
