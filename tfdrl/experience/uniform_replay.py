"""A replay in the learner's own memory: uniform, exact to restore, each frame stored once."""

from __future__ import annotations

import logging
import pathlib
import shutil

import numpy as np
import tree

from tfdrl.errors import ConfigurationError, TfdrlError
from tfdrl.experience.frame_stacks import FramePairs
from tfdrl.ops import returns
from tfdrl.runtime.nests import row_writer, rows_like
from tfdrl.types import LAST, Nest, TimeSteps, Transitions

_TIME_FIELDS = ("reward", "discount", "is_last", "ends", "depth")


class UniformReplay:
    """Holds the last steps of N environments and samples n-step transitions uniformly.

    Rows are steps: at t the observation, the action that answered it, and the reward and discount
    that followed. A LAST step is a row too: its observation is what windows bootstrap from.

    Args:
      capacity_steps: steps to hold, over all environments; the oldest are overwritten.
      num_envs: N.
      n: steps of a full window.
      gamma: discount factor of one step.
      frame_stack: k > 1 says that observations are stacks of k frames in the last axis, zero
        where an episode has had fewer. Then one frame a step is stored, and `FramePairs` are drawn.
      seed: of the sampling.

    Raises:
      ConfigurationError: a capacity that cannot hold one window of each environment; when
        adding, observations that are no such stacks.
    """

    def __init__(
        self,
        capacity_steps: int,
        num_envs: int,
        n: int,
        gamma: float,
        frame_stack: int = 1,
        seed: int = 0,
    ):
        self._rows = capacity_steps // num_envs
        if self._rows < n + frame_stack + 1:
            raise ConfigurationError(
                f"a replay of {capacity_steps} steps of {num_envs} environments cannot hold "
                f"{n}-step windows; it needs {(n + frame_stack + 1) * num_envs} steps or more"
            )
        self._num_envs, self._n, self._gamma = num_envs, n, gamma
        self._frame_stack = frame_stack
        shape = (self._rows, num_envs)
        self.reward = np.zeros(shape, np.float32)
        self.discount = np.zeros(shape, np.float32)
        self.is_last, self.ends = np.zeros(shape, bool), np.zeros(shape, bool)
        self.depth = np.zeros(shape, np.uint8)  # frames of this row's stack that are not padding
        self._observation = self._action = self._write_row = self._previous = None
        self._added = 0
        self._random = np.random.default_rng(seed)

    @property
    def size_steps(self) -> int:
        """Steps held, over all environments."""
        return min(self._added, self._rows) * self._num_envs

    def add(self, time_step: TimeSteps, action: Nest, next_time_step: TimeSteps) -> None:
        """Adds one step of each environment."""
        self._add(
            time_step.observation,
            action,
            next_time_step,
            time_step.step_type == LAST,
            next_time_step.step_type == LAST,
        )

    def truncate(self, time_step: TimeSteps, action: Nest) -> None:
        """Ends the running episodes at `time_step`, as a time limit would: they will not go on.

        Args:
          time_step: the time step after the last one added.
          action: any action; it is never used.
        """
        if self._added:
            self.ends[(self._added - 1) % self._rows] = True
        everyone = np.ones(self._num_envs, bool)
        self._add(time_step.observation, action, time_step, everyone, ~everyone)

    def sample(self, batch_size: int) -> Transitions:
        """Draws transitions uniformly, with replacement; never the step from LAST to FIRST."""
        return self.transitions(*self.sample_indices(batch_size))

    def sample_indices(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """Draws rows (counted from the oldest) and environments, <int64>[B] each."""
        rows = min(self._added, self._rows)
        # A stack's oldest frames may be overwritten already, and a window needs its n successors.
        first = self._frame_stack - 1 if self._added > self._rows else 0
        drawn = np.zeros((2, 0), np.int64)
        while drawn.shape[1] < batch_size:
            t = self._random.integers(first, rows - self._n, batch_size)
            i = self._random.integers(0, self._num_envs, batch_size)
            is_step = ~self.is_last[self._slot(t), i]
            drawn = np.concatenate([drawn, np.stack([t, i])[:, is_step]], axis=1)
        return drawn[0, :batch_size], drawn[1, :batch_size]

    def transitions(self, t: np.ndarray, i: np.ndarray) -> Transitions:
        """The transitions that begin at rows `t` (from the oldest) of environments `i`."""
        window = self._slot(t[None, :] + np.arange(self._n)[:, None])
        cut = returns.n_step_windows(
            self.reward[window, i],
            self.discount[window, i],
            self.ends[window, i],
            self._n,
            self._gamma,
        )
        observation, next_observation = self._observations(t, i, cut.length_steps[0])
        return Transitions(
            observation=observation,
            action=tree.map_structure(lambda x: x[self._slot(t), i], self._action),
            n_step_return=cut.n_step_return[0],
            discount=cut.discount[0],
            next_observation=next_observation,
        )

    def _add(self, observation, action, next_time_step, is_last, ends) -> None:
        if self._observation is None:
            self._allocate(observation, action)
        slot = self._added % self._rows
        newest = observation
        if self._frame_stack > 1:
            newest = observation[..., -1]
            self.depth[slot] = self._depths(observation)
            self._previous = observation
        self._write_row(slot, (newest, action))
        self.reward[slot], self.discount[slot] = next_time_step.reward, next_time_step.discount
        self.is_last[slot], self.ends[slot] = is_last, ends
        self._added += 1

    def _allocate(self, observation, action) -> None:
        if self._frame_stack > 1:
            if np.shape(observation)[-1:] != (self._frame_stack,):
                raise ConfigurationError(
                    f"frame_stack = {self._frame_stack}, but observations have shape "
                    f"{np.shape(observation)[1:]}: the last axis must be the stack"
                )
            observation = observation[..., -1]
        self._observation = rows_like(observation, self._rows)
        self._action = rows_like(action, self._rows)
        self._write_row = row_writer((self._observation, self._action))

    def _depths(self, observation) -> np.ndarray:
        """How far each stack continues the one of the row before."""
        axes = tuple(range(1, observation.ndim))
        continues = np.zeros(self._num_envs, bool)
        if self._previous is not None:
            continues = (observation[..., :-1] == self._previous[..., 1:]).all(axis=axes)
        if not continues.all():
            is_padded = (observation[..., :-1] == 0).all(axis=axes)
            if not (continues | is_padded).all():
                raise ConfigurationError(
                    f"frame_stack = {self._frame_stack}, but a stack neither continues the one of "
                    "the step before nor is zero but for its newest frame, so that it cannot be "
                    "rebuilt of single frames; set frame_stack = 1 to store whole observations"
                )
        before = self.depth[(self._added - 1) % self._rows]
        return np.where(continues, np.minimum(before + 1, self._frame_stack), 1).astype(np.uint8)

    def _observations(self, t, i, length_steps):
        """Those at t and at t + length_steps; of stacks, what both are made of."""
        if self._frame_stack == 1:
            rows = self._slot(t), self._slot(t + length_steps)
            return tuple(
                tree.map_structure(lambda x: x[row, i], self._observation)  # noqa: B023
                for row in rows
            )
        # Before the first row there is none; then another is taken, and not shown.
        frames = self._slot(t[:, None] + np.arange(1 - self._frame_stack, self._n + 1))
        steps = self._slot(t[:, None] + np.arange(self._n + 1))
        i = i[:, None]
        pairs = FramePairs(
            self._observation[frames, i], self.depth[steps, i], length_steps.astype(np.int32)
        )
        return pairs, ()

    def _slot(self, t):
        """Row counted from the oldest -> index into the arrays."""
        return (t + max(self._added - self._rows, 0)) % self._rows

    def save(self, directory: pathlib.Path) -> None:
        """Writes everything to `directory` as one (atomic rename); raises OSError if it cannot."""
        temporary = directory.with_name(directory.name + ".new")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        try:
            for name, array in self._arrays():
                np.save(temporary / f"{name}.npy", array[: self._added], allow_pickle=False)
            temporary.rename(directory)
        except OSError:
            shutil.rmtree(temporary, ignore_errors=True)
            raise

    def state(self) -> dict:
        """What `save` does not hold, for JSON."""
        return {"added": self._added, "random": self._random.bit_generator.state}

    def restore(self, directory: pathlib.Path, state: dict, observation, action) -> None:
        """Takes up what `save` and `state` left.

        Args:
          directory: that `save` wrote.
          state: of `state`.
          observation, action: of any time step, for their structure.

        Raises:
          TfdrlError: the files do not fit this replay.
        """
        self._allocate(observation, action)
        self._added = state["added"]
        self._random.bit_generator.state = state["random"]
        for name, array in self._arrays():
            try:
                array[: self._added] = np.load(directory / f"{name}.npy", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise TfdrlError(
                    f"the replay in {directory} does not fit ({name}: {error}); was its capacity "
                    "changed? Start with another --root_dir, or change it back"
                ) from error
        logging.info("restored %d steps of replay", self.size_steps)

    def forget_previous(self) -> None:
        """Environments were made anew: the next stacks continue nothing."""
        self._previous = None

    def _arrays(self):
        for name in _TIME_FIELDS:
            yield name, getattr(self, name)
        for kind, nest in (("observation", self._observation), ("action", self._action)):
            for number, leaf in enumerate(tree.flatten(nest)):
                yield f"{kind}-{number}", leaf
