"""What an episode can return, where an environment states the range of its rewards."""

from __future__ import annotations

import math
from typing import Any

from gymnasium.vector import VectorEnv

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
    if not environments:
        return ANY_RETURN
    try:
        low, high = map(float, environments[0].get_wrapper_attr("reward_range"))
    except (AttributeError, TypeError, ValueError):
        return ANY_RETURN
    if not low <= high:
        return ANY_RETURN
    return return_range((low, high), _most_steps(environments[0].spec))


def _most_steps(spec: Any) -> float:
    return getattr(spec, "max_episode_steps", None) or math.inf
