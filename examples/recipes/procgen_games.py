"""Procgen's games, which speak an interface older than Gymnasium's, as Gymnasium environments."""

import gymnasium
import numpy as np
from procgen import ProcgenGym3Env


class Procgen(gymnasium.Env):
    """One game on levels that are made by chance.

    Args:
      game: its name, such as "coinrun".
      levels: how many there are; 0: no two are the same.
      limit_steps: after so many an episode is truncated. The games do so themselves (CoinRun after
        1000), but show the next level then, and say no more than that the episode is over.
    """

    observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(15)

    def __init__(self, game, levels=200, limit_steps=999):
        self._how = {"env_name": game, "num_levels": levels, "distribution_mode": "easy"}
        self._games, self._limit_steps = None, limit_steps

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._age = 0
        if self._games is None or seed is not None:
            number = int(self.np_random.integers(2**31))
            self._games = ProcgenGym3Env(num=1, num_threads=0, rand_seed=number, **self._how)
        elif not self._games.observe()[2][0]:  # in the middle of an episode
            self._games.act(np.array([-1]))
        return self._observed(), {}

    def step(self, action):
        self._games.act(np.array([action]))
        reward, _, is_first = self._games.observe()
        self._age += 1
        # After an episode's end the next one's beginning is shown; nothing is learnt from it.
        is_over = bool(is_first[0])
        truncated = not is_over and self._age == self._limit_steps
        return self._observed(), float(reward[0]), is_over, truncated, {}

    def _observed(self):
        return self._games.observe()[1]["rgb"][0]


gymnasium.register("recipes/CoinRun-v0", entry_point=Procgen, kwargs={"game": "coinrun"})
