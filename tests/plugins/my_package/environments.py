"""A corridor as a Gymnasium environment."""

import gymnasium
import numpy as np


class Corridor(gymnasium.Env):
    """Seven places in a row, the start in the middle; the right end gives 1, the left end 0."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (7,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)  # 0: left, 1: right

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = 3
        return self.observation(), {}

    def step(self, action):
        self.place += 1 if action == 1 else -1
        at_end = self.place in (0, 6)
        return self.observation(), float(self.place == 6), at_end, False, {}

    def observation(self):
        return np.eye(7, dtype=np.float32)[self.place]


gymnasium.register("my_package/Corridor-v0", entry_point=Corridor, max_episode_steps=50)
