"""N environments behind one `step`: the interface every actor steps."""

from __future__ import annotations

import abc
from typing import Any

import numpy as np

from tfdrl.environments.stated_returns import ANY_RETURN
from tfdrl.errors import ConfigurationError
from tfdrl.types import FIRST, MID, Episodes, Nest, TimeSteps


class BatchedEnvironment(abc.ABC):
    """N environments stepped together, with next-step auto-reset.

    An environment factory anywhere in tfdrl is a callable
    `factory(num_envs=, training=, seed=) -> BatchedEnvironment`. One whose environments can be
    drawn also takes `render=True`, after which `render` works; that may be slower.

    The arrays of a `TimeSteps` stay valid for ever: no later step changes them. Observations
    may be read-only; copy them before writing into them.

    Attributes:
      num_envs: N.
      observation_spec: nest (dict, tuple) of `ArraySpec`, without the batch dimension. Integers
        that name something and measure nothing are `categorical`.
      action_spec: nest of `ArraySpec`. Discrete actions are int32 and start at 0, whatever
        the environment's own numbering.
      frames_per_step: environment (emulator) frames per step; 4 for Atari with skip 4.
      frame_stack: k > 1 if the observation is one array whose last axis holds the last k frames,
        oldest first, zeros before an episode's start: who has all steps needs the newest alone.
      return_range: the least and the greatest return of an episode, in raw rewards, as far as the
        environment states the range of its rewards.
      action_mask: the part of a dict observation that says which actions are allowed, <uint8>[A];
        None if there is none. Agents take no other actions, and their networks do not see it.
      steps_per_second: at which a recording looks as the environment's makers meant it.
      name: what messages call it; "" for its class's name.
      is_checked: whether it compares what it returns with its specs, and refuses numbers that are
        not finite; of one that does not, who steps it does (`returned.checked`).
    """

    num_envs: int
    observation_spec: Nest
    action_spec: Nest
    frames_per_step: int = 1
    frame_stack: int = 1
    return_range: tuple[float, float] = ANY_RETURN
    action_mask: str | None = None
    steps_per_second: float = 30.0
    name: str = ""
    is_checked: bool = False

    @abc.abstractmethod
    def reset(self) -> TimeSteps:
        """Starts a new episode in every environment; unfinished ones are forgotten."""

    @abc.abstractmethod
    def step(self, action: Nest) -> TimeSteps:
        """Steps every environment with its action, nest of [N, ...].

        The action of an environment whose last step was LAST is ignored: the step that
        follows is FIRST, with reward 0 and discount 1.
        """

    def steps_made(self, time_step: TimeSteps) -> int:
        """How many of the N environments made a step to get to `time_step`: those not at FIRST.

        A reset is no step and takes no frames. Call it once for each `step`, with its result.
        """
        return int(np.count_nonzero(time_step.step_type))  # FIRST is 0

    @abc.abstractmethod
    def take_episodes(self) -> Episodes:
        """Episodes that ended since the last call, in order of their end.

        Whole games with raw rewards: neither reward clipping nor the loss of a life shows.
        """

    def render(self) -> np.ndarray:
        """Environment 0 as it looks now, <uint8>[height, width, 3].

        Raises:
          ConfigurationError: it cannot be drawn, or was not made with `render=True`.
        """
        raise ConfigurationError(f"{type(self).__name__} cannot be drawn: it has no render()")

    @abc.abstractmethod
    def close(self) -> None:
        """Frees the environments; the object cannot be used afterwards."""

    def __enter__(self) -> BatchedEnvironment:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.close()


class EpisodeLog:
    """Sums raw rewards and frames of N running episodes and keeps the ended ones."""

    def __init__(self, num_envs: int, frames_per_step: int = 1):
        self._frames_per_step = frames_per_step
        self._returns = np.zeros(num_envs, np.float64)
        self._length_frames = np.zeros(num_envs, np.int64)
        self._ended: list[tuple[np.ndarray, np.ndarray]] = []

    def restart(self) -> None:
        """Forgets the running episodes, not the ended ones."""
        self._returns[:] = 0.0
        self._length_frames[:] = 0

    def add(self, reward: np.ndarray, done: np.ndarray, length_frames: Any = None) -> None:
        """Adds one step: raw reward [N], whether it ended the episode [N].

        `length_frames` [N] replaces the count of steps where the emulator counts by itself.
        """
        self._returns += reward
        self._length_frames += self._frames_per_step
        if not done.any():
            return
        lengths = self._length_frames if length_frames is None else np.asarray(length_frames)
        self._ended.append((self._returns[done], lengths[done]))
        self._returns[done] = 0.0
        # The next step is the FIRST of the new episode and costs no frames.
        self._length_frames[done] = -self._frames_per_step

    def take(self) -> Episodes:
        """The ended episodes since the last call."""
        ended, self._ended = self._ended, []
        if not ended:
            return Episodes(np.zeros(0, np.float32), np.zeros(0, np.int64))
        returns, lengths = zip(*ended)
        return Episodes(
            np.concatenate(returns).astype(np.float32), np.concatenate(lengths).astype(np.int64)
        )


def first_time_steps(observation: Nest, num_envs: int) -> TimeSteps:
    """The FIRST steps of N new episodes: reward 0, discount 1."""
    return TimeSteps(
        step_type=np.full(num_envs, FIRST, np.int32),
        reward=np.zeros(num_envs, np.float32),
        discount=np.ones(num_envs, np.float32),
        observation=observation,
    )


def picture(frame: Any, environment: str) -> np.ndarray:
    """Checks what an environment drew. Raises ConfigurationError that names `environment`."""
    if np.ndim(frame) != 3 or np.shape(frame)[-1] != 3:
        drew = "nothing" if frame is None else f"{type(frame).__name__} {np.shape(frame)}"
        raise ConfigurationError(
            f"{environment} cannot be drawn: a picture is <uint8>[height, width, 3], and it drew "
            f'{drew}. Does it take render_mode = "rgb_array"?'
        )
    return np.asarray(frame, np.uint8)


def step_types(first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """<int32>[N] from two <bool>[N] that are nowhere both true."""
    step_type = last.astype(np.int32)  # relies on FIRST, MID, LAST being 0, 1, 2
    step_type += MID
    step_type -= first
    return step_type
