"""Procgen's games, which speak an interface older than Gymnasium's, as Gymnasium environments."""

import gymnasium
import numpy as np
from procgen import ProcgenGym3Env


class Procgen(gymnasium.Env):
    """One game on levels that are made by chance.

    Args:
      game: its name, such as "coinrun".
      levels: how many there are; 0: no two are the same.
    """

    observation_space = gymnasium.spaces.Box(0, 255, (64, 64, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(15)

    def __init__(self, game, levels=200):
        self._how = {"env_name": game, "num_levels": levels, "distribution_mode": "easy"}
        self._games = None

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if self._games is None or seed is not None:
            number = int(self.np_random.integers(2**31))
            self._games = ProcgenGym3Env(num=1, rand_seed=number, **self._how)
        elif not self._games.observe()[2][0]:  # in the middle of an episode
            self._games.act(np.array([-1]))
        return self._observed(), {}

    def step(self, action):
        self._games.act(np.array([action]))
        reward, _, is_first = self._games.observe()
        # After an episode's end the next one's beginning is shown; nothing is learnt from it.
        return self._observed(), float(reward[0]), bool(is_first[0]), False, {}

    def _observed(self):
        return self._games.observe()[1]["rgb"][0]


gymnasium.register("recipes/CoinRun-v0", entry_point=Procgen, kwargs={"game": "coinrun"})
