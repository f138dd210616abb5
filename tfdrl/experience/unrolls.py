"""Unrolls collected step by step, inside the learner's process.

The arrays are used again: an actor's for its unroll after next. A new array of some megabytes
costs more, in page faults, than filling it.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tree

from tfdrl.rpc import clocks
from tfdrl.types import Nest, TimeSteps


class CollectedUnrolls(NamedTuple):
    """N unrolls of T transitions, time-major; see `types.Unrolls`.

    steps         TimeSteps of [T+1, N, ...]
    acted         pair (action, info), nests of [T, N, ...]
    policy_state  nest of [N, ...] before step 0
    version       of the parameters that chose the first action after the overlap
    time_secs     Unix time when they were complete
    release       to be called when the arrays are not needed any more
    next_info     of the policy at step T, nest of [N, ...]; () until it has acted there
    environments  <int>[N], which of those that step together; None for all of them
    """

    steps: TimeSteps
    acted: tuple[Nest, Nest]
    policy_state: Nest
    version: int
    time_secs: float
    release: Callable[[], None]
    next_info: Nest = ()
    environments: np.ndarray | None = None

    @property
    def rows(self) -> int:
        """N."""
        return self.steps.reward.shape[1]

    def with_next_info(self, info: Nest) -> CollectedUnrolls:
        """Of the policy at step T of all environments that step together."""
        chosen = self.environments
        if chosen is not None:
            info = tree.map_structure(lambda leaf: np.asarray(leaf)[chosen], info)
        return self._replace(next_info=info)


class UnrollCollector:
    """Cuts the steps of N environments into unrolls of full length, through episode ends.

    The last `overlap` transitions of an unroll are the first of the next, and the step after
    them: without overlap step T is step 0 of the next. The first unroll of a run has zeros in
    place of the transitions that it would share (SEED RL's release; R2D2's burn-in).

    Args:
      unroll_steps: T, the overlap included.
      overlap: below T.
      frame_stack: k > 1 where observations are single frames, `Frames` [N, ...]: unrolls have those
        of the k-1 steps before, too, [T+k, N, ...].
    """

    def __init__(self, unroll_steps: int, overlap: int = 0, frame_stack: int = 1):
        self._unroll_steps, self._overlap = unroll_steps, overlap
        self._frames_before = frame_stack - 1
        self._free: collections.deque[_Arrays] = collections.deque()
        self._arrays: _Arrays | None = None
        self._position = 0
        self._policy_state = self._version = None
        # Before each of the last overlap + 1 steps: the first of them begins the next unroll.
        self._policy_states: collections.deque[Nest] = collections.deque(maxlen=overlap + 1)

    def start(self, time_step: TimeSteps, policy_state: Nest, version: int) -> None:
        """Starts a run.

        Args:
          time_step: the first N steps.
          policy_state: before them, nest of [N, ...]; must not be written to afterwards.
          version: of the parameters that act next.
        """
        self._arrays = self._new_arrays(time_step)
        self._position = self._overlap
        self._arrays.write_step(self._position, time_step)
        self._policy_states.extend([policy_state] * (self._overlap + 1))
        self._policy_state, self._version = policy_state, version

    def add(
        self, action: Nest, info: Nest, next_time_step: TimeSteps, policy_state: Nest, version: int
    ) -> CollectedUnrolls | None:
        """Adds what was done at the last steps and what it led to; returns complete unrolls.

        Args:
          action, info: nests of [N, ...].
          next_time_step: N steps.
          policy_state: before them; must not be written to afterwards.
          version: of the parameters that act next.
        """
        arrays, start_of_next = self._arrays, self._unroll_steps - self._overlap
        arrays.write_acted(self._position, (action, info))
        self._position += 1
        arrays.write_step(self._position, next_time_step)
        self._policy_states.append(policy_state)
        if self._position < self._unroll_steps:
            return None
        complete = CollectedUnrolls(
            arrays.steps,
            arrays.acted,
            self._policy_state,
            self._version,
            clocks.unix_secs(),
            release=lambda: self._free.append(arrays),
        )
        self._arrays = self._free.pop() if self._free else self._new_arrays(next_time_step)
        self._arrays.continue_from(arrays, start_of_next)
        self._position = self._overlap
        self._policy_state, self._version = self._policy_states[0], version
        return complete

    def _new_arrays(self, time_step: TimeSteps) -> _Arrays:
        return _Arrays(time_step, self._unroll_steps, self._overlap, self._frames_before)


class _Arrays:
    """Room for one unroll of N environments; the part before the first step is zero."""

    def __init__(self, time_step: TimeSteps, unroll_steps: int, overlap: int, frames_before: int):
        self._unroll_steps, self._overlap = unroll_steps, overlap
        self.steps = by_step = empty_like(time_step, unroll_steps + 1)
        self._frames, self._frames_before = None, frames_before
        if frames_before:
            length = unroll_steps + 1 + frames_before
            self._frames = empty_like(time_step.observation.frames, length)
            self._frames[:frames_before] = 0
            self.steps = _with_frames(by_step, self._frames)
            by_step = _with_frames(by_step, self._frames[frames_before:])
        self.acted = None  # known with the first action
        self._step_leaves, self._acted_leaves = tree.flatten(by_step), []
        for leaf in self._step_leaves:
            leaf[:overlap] = 0

    def write_step(self, position: int, steps: TimeSteps) -> None:
        for target, leaf in zip(self._step_leaves, tree.flatten(steps)):
            target[position] = leaf

    def write_acted(self, position: int, acted: tuple[Nest, Nest]) -> None:
        if self.acted is None:
            self._make_acted(empty_like(acted, self._unroll_steps))
            for leaf in self._acted_leaves:
                leaf[: self._overlap] = 0
        for target, leaf in zip(self._acted_leaves, tree.flatten(acted)):
            target[position] = leaf

    def continue_from(self, other: _Arrays, start: int) -> None:
        """Takes over the end of another unroll, from `start` on, as the beginning."""
        overlap = self._overlap
        if self.acted is None:
            self._make_acted(tree.map_structure(np.empty_like, other.acted))
        for target, leaf in zip(self._step_leaves, other._step_leaves):
            target[: overlap + 1] = leaf[start:]
        if self._frames is not None:
            before = self._frames_before
            self._frames[:before] = other._frames[start : start + before]
        for target, leaf in zip(self._acted_leaves, other._acted_leaves):
            target[:overlap] = leaf[start:]

    def _make_acted(self, acted: tuple[Nest, Nest]) -> None:
        self.acted, self._acted_leaves = acted, tree.flatten(acted)


def _with_frames(steps: TimeSteps, frames: np.ndarray) -> TimeSteps:
    return steps._replace(observation=steps.observation._replace(frames=frames))


def empty_like(nest: Nest, length: int) -> Nest:
    """Room for `length` times what is in a nest: [length, ...]."""
    return tree.map_structure(lambda leaf: np.empty((length, *leaf.shape), leaf.dtype), nest)
