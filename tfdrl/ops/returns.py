"""N-step returns over windows that end with their episode (Ape-X, section 3; Sutton 1988)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Windows(NamedTuple):
    """N-step windows, one for each start index.

    n_step_return  <float32>[T, ...]  sum over i < m of gamma^i (prod of discounts before) r_{t+i+1}
    discount       <float32>[T, ...]  gamma^(m-1) times the product of the m discounts: 0 after a
                                      termination. One factor of gamma is left to the agent, as in
                                      TF-Agents' `to_n_step_transition`.
    length_steps   <int32>[T, ...]    m: n, or fewer where the episode ends first
    """

    n_step_return: np.ndarray
    discount: np.ndarray
    length_steps: np.ndarray


def n_step_windows(
    reward: np.ndarray, discount: np.ndarray, ends: np.ndarray, n: int, gamma: float
) -> Windows:
    """Cuts the windows of up to `n` steps that start at the first T = L - n + 1 steps.

    G_t = sum_{i<m} gamma^i r_{t+i+1} + gamma^m Q(s_{t+m}), with m = n or the number of steps to
    the end of the episode, whichever is smaller. Nothing flows across an episode's end.

    Args:
      reward: <float>[L, ...], r_{t+1} that followed step t.
      discount: <float>[L, ...], 0 where step t + 1 is terminal, else 1 (also at a truncation).
      ends: <bool>[L, ...], whether step t + 1 is the last of its episode.
      n: length of a full window, in steps.
      gamma: discount factor of one step.

    Raises:
      ValueError: fewer than n steps, or shapes that differ.
    """
    if not (reward.shape == discount.shape == ends.shape):
        raise ValueError(
            f"reward, discount and ends must have one shape, got {reward.shape}, "
            f"{discount.shape} and {ends.shape}"
        )
    starts = reward.shape[0] - n + 1
    if n < 1 or starts < 1:
        raise ValueError(f"{reward.shape[0]} steps hold no window of {n} steps")
    shape = (starts, *reward.shape[1:])
    total, last = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    length_steps = np.zeros(shape, np.int32)
    scale, is_open = np.ones(shape, np.float32), np.ones(shape, bool)
    for i in range(n):
        window = slice(i, i + starts)
        total += np.where(is_open, scale * reward[window], 0.0)
        last = np.where(is_open, scale * discount[window], last)
        length_steps += is_open
        scale = scale * discount[window] * gamma
        is_open = is_open & ~ends[window]
    return Windows(total.astype(np.float32), last.astype(np.float32), length_steps)
