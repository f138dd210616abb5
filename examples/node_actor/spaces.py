"""What a learner must know of a game that is played elsewhere."""

import gymnasium
import numpy as np


class PlayedByNode(gymnasium.Env):
    """The spaces of game.js; nothing of it can be played here."""

    observation_space = gymnasium.spaces.Box(0.0, 1.0, (8, 5), np.float32)
    action_space = gymnasium.spaces.Discrete(3)


gymnasium.register("node_actor/Catch-v0", entry_point=PlayedByNode)
