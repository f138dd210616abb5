"""Small environments with known optimal returns, registered as "tfdrl/<Name>-v0".

`optimal_return` is the largest expected undiscounted return of an episode.
"""

from __future__ import annotations

import time

import gymnasium
import numpy as np
from gymnasium import spaces


class Chain(gymnasium.Env):
    """A corridor of n states: walk right to its end. Deterministic.

    Observation <float32>[n], the state as one-hot; the start is state 0. Actions: 0 left,
    1 right. Reaching state n-1 gives 1 and terminates; any other step costs `step_cost`.
    Optimal: right, n-1 times.
    """

    def __init__(self, num_states: int = 5, step_cost: float = 0.1):
        self.observation_space = spaces.Box(0.0, 1.0, (num_states,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.optimal_return = 1.0 - step_cost * (num_states - 2)
        self._step_cost = step_cost
        self._last_state = num_states - 1
        self._state = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._state = 0
        return self._observation(), {}

    def step(self, action):
        self._state = max(0, self._state + (1 if action == 1 else -1))
        at_end = self._state == self._last_state
        return self._observation(), 1.0 if at_end else -self._step_cost, at_end, False, {}

    def _observation(self) -> np.ndarray:
        observation = np.zeros(self._last_state + 1, np.float32)
        observation[self._state] = 1.0
        return observation


class Catch(gymnasium.Env):
    """Catch a falling ball with a paddle.

    Observation <float32>[rows, columns]: 1 at the ball and at the paddle, which moves in the
    bottom row. The ball starts in a random column of the top row and falls one row a step.
    Actions: 0 left, 1 stay, 2 right. When the ball reaches the bottom row the episode ends
    with reward 1 if it meets the paddle, else -1. Optimal: stand below the ball.

    With `visible_rows` the ball is shown only in that many rows at the top: where it will land
    must be remembered. Shown once, over 5 columns, a policy without memory meets at most three
    of five balls (a return of 0.2): after its first move it knows only left, middle or right.
    """

    optimal_return = 1.0

    def __init__(self, rows: int = 10, columns: int = 5, visible_rows: int | None = None):
        self.observation_space = spaces.Box(0.0, 1.0, (rows, columns), np.float32)
        self.action_space = spaces.Discrete(3)
        self._rows, self._columns = rows, columns
        self._visible_rows = rows if visible_rows is None else visible_rows

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._ball_row = 0
        self._ball_column = int(self.np_random.integers(self._columns))
        self._paddle_column = self._columns // 2
        return self._observation(), {}

    def step(self, action):
        moved = self._paddle_column + int(action) - 1
        self._paddle_column = min(max(moved, 0), self._columns - 1)
        self._ball_row += 1
        landed = self._ball_row == self._rows - 1
        caught = self._paddle_column == self._ball_column
        reward = (1.0 if caught else -1.0) if landed else 0.0
        return self._observation(), reward, landed, False, {}

    def _observation(self) -> np.ndarray:
        board = np.zeros((self._rows, self._columns), np.float32)
        if self._ball_row < self._visible_rows:
            board[self._ball_row, self._ball_column] = 1.0
        board[-1, self._paddle_column] = 1.0
        return board


class Memory(gymnasium.Env):
    """Recall at the end which of two cues the first step showed.

    Observation <float32>[3]: cue 0, cue 1 (one of them is 1 at the first step, both 0 later)
    and a query flag, 1 when the answer is asked for, `delay` steps after the cue. The action
    (0 or 1) then given earns 1 if it names the cue, else -1, and terminates; other actions
    have no effect. Optimal: 1. Without memory nothing beats an expected return of 0.
    """

    optimal_return = 1.0

    def __init__(self, delay: int = 8):
        self.observation_space = spaces.Box(0.0, 1.0, (3,), np.float32)
        self.action_space = spaces.Discrete(2)
        self._delay = delay

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        self._cue = int(self.np_random.integers(2))
        observation = np.zeros(3, np.float32)
        observation[self._cue] = 1.0
        return observation, {}

    def step(self, action):
        answered = self._step == self._delay
        self._step += 1
        observation = np.zeros(3, np.float32)
        observation[2] = self._step == self._delay
        reward = (1.0 if action == self._cue else -1.0) if answered else 0.0
        return observation, reward, answered, False, {}


class Sleep(gymnasium.Env):
    """A slow environment: every step sleeps `step_secs`. Reward 1 a step, whatever is done.

    Observation <float32>[4], zeros. Terminates after `episode_steps`.
    """

    def __init__(self, step_secs: float = 0.001, episode_steps: int = 100):
        self.observation_space = spaces.Box(0.0, 1.0, (4,), np.float32)
        self.action_space = spaces.Discrete(2)
        self.optimal_return = float(episode_steps)
        self._step_secs, self._episode_steps = step_secs, episode_steps

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._step = 0
        return np.zeros(4, np.float32), {}

    def step(self, action):
        time.sleep(self._step_secs)
        self._step += 1
        return np.zeros(4, np.float32), 1.0, self._step == self._episode_steps, False, {}


class Doors(gymnasium.Env):
    """Rooms in a row, each with some doors, of which two are open: an action mask.

    Observation <float32>[rooms + 1], the room as one-hot. Actions: through door 0 to doors - 1; a
    closed one raises ValueError. The open doors are drawn anew in each room; the higher of them
    gives 1, the other nothing. The mask <int8>[doors] is in the observation, a Dict of
    "observation" and "action_mask", or in `info`; behind the last room, where the episode ends, no
    door is open. Optimal: always the higher, a return of `rooms`; at random it is half of it.
    """

    def __init__(self, rooms: int = 5, doors: int = 4, mask_in_info: bool = False):
        place = spaces.Box(0.0, 1.0, (rooms + 1,), np.float32)
        mask = spaces.Box(0, 1, (doors,), np.int8)
        both = spaces.Dict({"observation": place, "action_mask": mask})
        self.observation_space = place if mask_in_info else both
        self.action_space = spaces.Discrete(doors)
        self.optimal_return = float(rooms)
        self._rooms, self._mask_in_info = rooms, mask_in_info

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._room = 0
        self._draw_doors()
        return self._shown()

    def step(self, action):
        if not self._open[action]:
            raise ValueError(f"door {action} is closed; the mask is {self._open}")
        reward = float(action == np.flatnonzero(self._open)[-1])
        self._room += 1
        self._draw_doors()
        observation, info = self._shown()
        return observation, reward, self._room == self._rooms, False, info

    def _draw_doors(self) -> None:
        doors = int(self.action_space.n)
        self._open = np.zeros(doors, np.int8)
        if self._room < self._rooms:
            self._open[self.np_random.choice(doors, 2, replace=False)] = 1

    def _shown(self):
        place = np.zeros(self._rooms + 1, np.float32)
        place[self._room] = 1.0
        if self._mask_in_info:
            return place, {"action_mask": self._open.copy()}
        return {"observation": place, "action_mask": self._open.copy()}, {}


def register() -> None:
    """Registers the toys with Gymnasium; the second call does nothing."""
    if "tfdrl/Chain-v0" in gymnasium.registry:
        return
    here = __name__
    gymnasium.register("tfdrl/Chain-v0", entry_point=f"{here}:Chain", max_episode_steps=50)
    gymnasium.register("tfdrl/Catch-v0", entry_point=f"{here}:Catch")
    gymnasium.register(
        "tfdrl/CatchMemory-v0", entry_point=f"{here}:Catch", kwargs={"visible_rows": 1}
    )
    gymnasium.register("tfdrl/Memory-v0", entry_point=f"{here}:Memory")
    gymnasium.register("tfdrl/Sleep-v0", entry_point=f"{here}:Sleep")
    gymnasium.register("tfdrl/Doors-v0", entry_point=f"{here}:Doors")
    frames = "tfdrl.environments.random_frames"
    gymnasium.register(
        "tfdrl/RandomFrames-v0",
        entry_point=f"{frames}:RandomFrames",
        vector_entry_point=f"{frames}:RandomFramesVector",
    )
