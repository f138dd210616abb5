"""Environments of random frames with short episodes, which show stacks of the last k frames."""

import numpy as np

from tfdrl.environments.batched import BatchedEnvironment, first_time_steps
from tfdrl.types import FIRST, LAST, MID, ArraySpec, Episodes, TimeSteps


class StackedGames(BatchedEnvironment):
    """N games; after half of the episodes the game goes on, as after a lost life.

    A third of the episodes is cut by a time limit (discount 1). A tenth of the frames is black.
    """

    def __init__(self, num_envs, frame_stack=4, seed=0, size=6, end_share=0.3):
        self.num_envs, self.frame_stack, self._last = num_envs, frame_stack, frame_stack
        shape = (size, size, frame_stack)
        self.observation_spec = ArraySpec(shape, np.dtype(np.uint8), 0, 255, "observation")
        self.action_spec = ArraySpec((), np.dtype(np.int32), 0, 2, "action")
        self._random, self._size, self._end_share = np.random.default_rng(seed), size, end_share
        self._shown = [[] for _ in range(num_envs)]  # the frames of each game
        self._goes_on = np.zeros(num_envs, bool)
        self._step_type = np.full(num_envs, LAST, np.int32)

    def reset(self):
        self._goes_on[:], self._step_type[:] = False, FIRST
        return first_time_steps(self._observation(self._step_type == FIRST), self.num_envs)

    def step(self, action):
        random, n = self._random, self.num_envs
        was_last = self._step_type == LAST
        is_last = ~was_last & self._ends()
        is_new = was_last & ~self._goes_on
        self._step_type = np.where(was_last, FIRST, np.where(is_last, LAST, MID)).astype(np.int32)
        self._goes_on = random.random(n) < 0.5
        is_cut = random.random(n) < 1 / 3
        reward = np.where(was_last, 0.0, random.integers(-1, 2, n)).astype(np.float32)
        discount = np.where(is_last & ~is_cut, 0.0, 1.0).astype(np.float32)
        return TimeSteps(self._step_type.copy(), reward, discount, self._observation(is_new))

    def _ends(self):
        """Which episodes end with this step, of those that go on."""
        return self._random.random(self.num_envs) < self._end_share

    def _observation(self, is_new):
        frames = self._random.integers(0, 256, (self.num_envs, self._size, self._size), np.uint8)
        frames[self._random.random(self.num_envs) < 0.1] = 0
        observation = np.zeros((self.num_envs, *self.observation_spec.shape), np.uint8)
        for i, shown in enumerate(self._shown):
            if is_new[i]:
                shown.clear()
            shown.append(frames[i])
            last = np.stack(shown[-self._last :], axis=-1)
            observation[i, ..., -last.shape[-1] :] = last
        return observation

    def take_episodes(self):
        return Episodes(np.zeros(0, np.float32), np.zeros(0, np.int64))

    def close(self):
        pass


def played(games, steps):
    """The time steps of `steps` steps after a reset."""
    found = [games.reset()]
    for _ in range(steps):
        found.append(games.step(np.zeros(games.num_envs, np.int32)))
    return found
