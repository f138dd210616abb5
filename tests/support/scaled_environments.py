"""An environment whose observations are of scales that no network could learn from as they are."""

import gymnasium
import numpy as np
from gymnasium import spaces

STEPS = 4


class Scales(gymnasium.Env):
    """Of two numbers, 1e4 and 1e-4 large, the sign of the small one says which action is right.

    Each right action gives 1: the best return is 4, that of any fixed policy 2 on average.
    """

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self._show(), {}

    def step(self, action):
        reward = float(action == self._right)
        self.t += 1
        return self._show(), reward, self.t == STEPS, False, {}

    def _show(self):
        observation, right = draw(self.np_random, 1)
        self._right = right[0]
        return observation[0]


def draw(random: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Observations <float32>[count, 2] and the actions that are right."""
    sign = random.choice([-1.0, 1.0], count)
    large, small = random.normal(size=count), sign * random.uniform(0.5, 1.5, count)
    return np.stack([1e4 * large, 1e-4 * small], axis=1).astype(np.float32), np.int32(sign > 0)


gymnasium.register("Scales-v0", entry_point=Scales)
