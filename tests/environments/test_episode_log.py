"""EpisodeLog: raw returns and lengths of running episodes."""

import numpy as np

from tfdrl.environments.batched import EpisodeLog, step_types
from tfdrl.types import FIRST, LAST, MID


def test_sums_rewards_and_counts_frames_but_not_the_first_step():
    log = EpisodeLog(num_envs=2, frames_per_step=4)
    #  environment 0: two steps (1 + 2), then FIRST, then one step (8)
    #  environment 1: four steps (10 each)
    for reward, done in (
        ([1.0, 10.0], [False, False]),
        ([2.0, 10.0], [True, False]),
        ([0.0, 10.0], [False, False]),
        ([8.0, 10.0], [True, True]),
    ):
        log.add(np.array(reward), np.array(done))
    episodes = log.take()
    np.testing.assert_array_equal(episodes.returns, [1 + 2, 8, 4 * 10])
    np.testing.assert_array_equal(episodes.length_frames, [2 * 4, 1 * 4, 4 * 4])
    assert episodes.returns.dtype == np.float32 and episodes.length_frames.dtype == np.int64
    assert log.take().returns.shape == (0,)


def test_restart_forgets_running_episodes_and_keeps_ended_ones():
    log = EpisodeLog(num_envs=2)
    log.add(np.array([1.0, 5.0]), np.array([True, False]))
    log.restart()
    log.add(np.array([0.5, 0.5]), np.array([False, True]))
    episodes = log.take()
    np.testing.assert_array_equal(episodes.returns, [1.0, 0.5])
    np.testing.assert_array_equal(episodes.length_frames, [1, 1])


def test_step_types():
    first = np.array([True, False, False])
    last = np.array([False, False, True])
    step_type = step_types(first, last)
    np.testing.assert_array_equal(step_type, [FIRST, MID, LAST])
    assert step_type.dtype == np.int32
