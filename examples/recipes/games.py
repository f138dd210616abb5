"""One agent's view of a game of several: the others, which draw their moves, are its world."""

import gymnasium
import numpy as np
from pettingzoo.classic import tictactoe_v3


class AgainstChance(gymnasium.Env):
    """A PettingZoo game of turns as the agent sees it that is at its turn first or second.

    Args:
      game: makes an AEC environment whose observations are Dicts with a mask of actions.
      render_mode: handed to the game.
    """

    def __init__(self, game, render_mode=None):
        self._game = game(render_mode=render_mode)
        self.metadata, self.render_mode = self._game.metadata, render_mode
        agent = self._game.possible_agents[0]
        self.observation_space = self._game.observation_space(agent)
        self.action_space = self._game.action_space(agent)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._game.reset(seed=seed)
        self._agent = self._game.possible_agents[self.np_random.integers(2)]
        self._let_others_move()
        return self._observed(), {}

    def step(self, action):
        self._game.step(int(action))
        self._let_others_move()
        terminated = self._game.terminations[self._agent]
        reward = float(self._game.rewards[self._agent])
        return self._observed(), reward, terminated, self._game.truncations[self._agent], {}

    def render(self):
        return self._game.render()

    def close(self):
        self._game.close()

    def _let_others_move(self):
        game = self._game
        while game.agent_selection != self._agent and not any(game.terminations.values()):
            mask = game.observe(game.agent_selection)["action_mask"]
            game.step(int(self.np_random.choice(np.flatnonzero(mask))))

    def _observed(self):
        return self._game.observe(self._agent)


gymnasium.register(
    "recipes/TicTacToe-v0", entry_point=AgainstChance, kwargs={"game": tictactoe_v3.env}
)
