"""Random Atari-sized frames: an environment that costs next to nothing, for benchmarks."""

from __future__ import annotations

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

_POOL_FRAMES = 64
_CHANNELS = 4


class RandomFrames(gymnasium.Env):
    """Random observations <uint8>[size, size, 4], reward 0, `episode_steps` steps an episode.

    Observations come from a pool of 64 that the seed determines. Actions: Discrete(6), without
    effect. Every episode terminates; its return is 0.
    """

    optimal_return = 0.0

    def __init__(self, episode_steps: int = 100, num_actions: int = 6, size: int = 84):
        self.observation_space = _frames(size)
        self.action_space = spaces.Discrete(num_actions)
        self._episode_steps = episode_steps
        self._pool = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None or self._pool is None:
            self._pool = _random_pool(self.np_random, self.observation_space)
        self._step = 0
        return self._pool[0].copy(), {}

    def step(self, action):
        self._step += 1
        frame = self._pool[self._step % _POOL_FRAMES].copy()
        return frame, 0.0, self._step == self._episode_steps, False, {}


class RandomFramesVector(VectorEnv):
    """N `RandomFrames` whose observations are gathered from one pool.

    Environment i starts i steps into its first episode, so that episodes do not end together.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(
        self, num_envs: int, episode_steps: int = 100, num_actions: int = 6, size: int = 84
    ):
        self.num_envs = num_envs
        self.single_observation_space = _frames(size)
        self.single_action_space = spaces.Discrete(num_actions)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._episode_steps = episode_steps
        self._pool = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None or self._pool is None:
            self._pool = _random_pool(self.np_random, self.single_observation_space)
        self._steps = np.arange(self.num_envs) % self._episode_steps
        return self._observation(), {}

    def step(self, actions):
        self._steps = np.where(self._steps == self._episode_steps, 0, self._steps + 1)
        terminated = self._steps == self._episode_steps
        zeros = np.zeros(self.num_envs, np.float32)
        return self._observation(), zeros, terminated, np.zeros(self.num_envs, bool), {}

    def _observation(self) -> np.ndarray:
        return self._pool[(self._steps + np.arange(self.num_envs)) % _POOL_FRAMES]


def _frames(size: int) -> spaces.Box:
    return spaces.Box(0, 255, (size, size, _CHANNELS), np.uint8)


def _random_pool(generator: np.random.Generator, space: spaces.Box) -> np.ndarray:
    return generator.integers(0, 256, (_POOL_FRAMES, *space.shape), np.uint8)
