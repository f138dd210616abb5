"""Plays whole episodes with a policy and says how good they were."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfdrl.environments.batched import BatchedEnvironment
from tfdrl.environments.returned import checked
from tfdrl.rpc.run_messages import Evaluation
from tfdrl.types import FIRST, LAST


def play(
    environment: BatchedEnvironment,
    act: Callable,
    initial_state: Callable[[int], object],
    episodes: int,
    should_stop: Callable[[], bool] = lambda: False,
    on_step: Callable | None = None,
) -> np.ndarray:
    """Plays episodes from their beginning and returns their undiscounted raw returns.

    How many each environment plays is fixed before (within one the same for all), so that long
    episodes count as often as short ones.

    Args:
      environment: N environments without training wrappers.
      act: of `act_function`.
      initial_state: policy state for a batch of N.
      episodes: how many, over all environments; at least 1.
      should_stop: asked at each step.
      on_step: called after the reset and after each step as `on_step(returns)`, with the returns
        of the episodes that ended so far.

    Returns:
      <float64>[k] in order of environments; shorter than asked for only if told to stop.
    """
    everyone = np.arange(environment.num_envs)
    quota = episodes // environment.num_envs + (everyone < episodes % environment.num_envs)
    returns = np.zeros((quota.max(), environment.num_envs))
    played = np.zeros(environment.num_envs, np.int64)
    steps = checked(environment, environment.reset())
    state = initial_state(environment.num_envs)
    is_played = np.arange(len(returns))[:, None] < played
    while (played < quota).any() and not should_stop():
        if on_step is not None:
            on_step(returns[is_played])
        action = act(*steps, state)
        state = action.state
        actions = tf.nest.map_structure(lambda x: x.numpy(), action.action)
        steps = checked(environment, environment.step(actions))
        counts = (played < quota) & (steps.step_type != FIRST)
        slot = np.minimum(played, len(returns) - 1)
        returns[slot, everyone] += np.where(counts, steps.reward, 0.0)
        played += counts & (steps.step_type == LAST)
        is_played = np.arange(len(returns))[:, None] < played
    if on_step is not None:
        on_step(returns[is_played])
    return returns.T[is_played.T]


def summarise(returns: np.ndarray, version: int, frames: int, start_secs: float) -> Evaluation:
    """Statistics of the returns of one evaluation that began at `start_secs` (monotonic)."""
    count = len(returns)
    deviation = returns.std(ddof=1) if count > 1 else 0.0
    return Evaluation(
        version=version,
        frames=frames,
        mean=float(returns.mean()),
        median=float(np.median(returns)),
        standard_error=float(deviation / np.sqrt(count)),
        min=float(returns.min()),
        max=float(returns.max()),
        episodes=count,
        seconds=time.monotonic() - start_secs,
    )
