"""A simulator that steps N environments by arrays: pucks on ice, to be pushed to the middle."""

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

_STEPS = 50


class Pucks(gymnasium.vector.VectorEnv):
    """Position and speed in two dimensions; the action is a force; each step costs the distance.

    An episode's last step shows its last observation; the step after it ignores the action and
    shows the first observation of the next episode.
    """

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}

    def __init__(self, num_envs):
        self.num_envs = num_envs
        self.single_observation_space = gymnasium.spaces.Box(-4.0, 4.0, (4,), np.float32)
        self.single_action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._state = np.zeros((self.num_envs, 4), np.float32)
        self._ages = np.zeros(self.num_envs, int)
        self._begin(np.ones(self.num_envs, bool))
        return self._state.copy(), {}

    def step(self, actions):
        begins = self._ages == _STEPS
        position, speed = self._state[:, :2], self._state[:, 2:]
        speed += 0.1 * np.clip(actions, -1, 1) - 0.02 * speed
        position += 0.1 * speed
        np.clip(self._state, -4, 4, out=self._state)
        self._ages += 1
        self._begin(begins)
        reward = np.where(begins, 0.0, -np.linalg.norm(position, axis=1))
        truncated = self._ages == _STEPS
        return self._state.copy(), reward, np.zeros(self.num_envs, bool), truncated, {}

    def _begin(self, which):
        count = which.sum()
        self._state[which, :2] = self.np_random.uniform(-1, 1, (count, 2))
        self._state[which, 2:] = 0.0
        self._ages[which] = 0


gymnasium.register("recipes/Puck-v0", vector_entry_point=Pucks)
