"""Unrolls that never cross the end of an episode, as R2D2 cuts its sequences."""

from __future__ import annotations

import collections

import numpy as np
import tree

from tfdrl.experience.unrolls import CollectedUnrolls, UnrollCollector, empty_like
from tfdrl.rpc import clocks
from tfdrl.types import FIRST, LAST, Nest, TimeSteps


def unroll_collector(
    unroll_steps: int, overlap: int, within_episodes: bool = False, frame_stack: int = 1
) -> UnrollCollector | EpisodeUnrollCollector:
    """The collector of one of the two ways, with what each takes."""
    if within_episodes:
        return EpisodeUnrollCollector(unroll_steps, overlap, frame_stack)
    return UnrollCollector(unroll_steps, overlap, frame_stack)


class EpisodeUnrollCollector:
    """Cuts the steps of N environments into unrolls, each within one episode.

    Adjacent unrolls of an episode overlap by `overlap` transitions. The last one ends with the
    episode, so it overlaps by more: its start is moved back until it has full length (Kapturowski
    2019, section 2.3). What an unroll lacks before the start of its episode, because it is the
    first or the whole episode is shorter, is padding: steps of zeros and of step_type LAST, which
    no loss counts, with a state of zeros before them.

    An unroll ends for some environments where it goes on for others, so `add` returns rows.

    Args:
      unroll_steps: T, the overlap included.
      overlap: below T.
      frame_stack: k, where observations are single frames, as of `UnrollCollector`. Padding has
        those that the first stack shows, if an episode began in the middle of a game.
    """

    def __init__(self, unroll_steps: int, overlap: int = 0, frame_stack: int = 1):
        self._length, self._period = unroll_steps, unroll_steps - overlap
        self._frame_stack, self._ring = frame_stack, unroll_steps + frame_stack
        self._time = 0
        # Before each of the last T + 1 steps, and of the parameters that acted at each.
        self._policy_states: collections.deque[Nest] = collections.deque(maxlen=unroll_steps + 1)
        self._versions: collections.deque[int] = collections.deque(maxlen=unroll_steps + 1)
        self._steps = self._acted = self._age_steps = None

    def start(self, time_step: TimeSteps, policy_state: Nest, version: int) -> None:
        """Starts a run; see `UnrollCollector.start`."""
        # A ring, by time; of steps before the first it has zeros.
        self._steps = tree.map_structure(np.zeros_like, empty_like(time_step, self._ring))
        self._age_steps = np.full(time_step.step_type.shape, -1)
        self._add_step(time_step, policy_state, version)

    def add(
        self, action: Nest, info: Nest, next_time_step: TimeSteps, policy_state: Nest, version: int
    ) -> CollectedUnrolls | None:
        """Adds a transition; returns the unrolls it completes. See `UnrollCollector.add`."""
        if self._acted is None:
            self._acted = empty_like((action, info), self._length)  # a ring, too
        _write(self._acted, self._time % self._length, (action, info))
        self._time += 1
        self._add_step(next_time_step, policy_state, version)
        age_steps, is_last = self._age_steps, next_time_step.step_type == LAST
        is_due = is_last | ((age_steps > 0) & (age_steps % self._period == 0))
        rows = np.flatnonzero(is_due)
        return self._cut(rows) if rows.size else None

    def _add_step(self, steps: TimeSteps, policy_state: Nest, version: int) -> None:
        _write(self._steps, self._time % self._ring, steps)
        self._policy_states.append(policy_state)
        self._versions.append(version)
        self._age_steps = np.where(steps.step_type == FIRST, 0, self._age_steps + 1)

    def _cut(self, rows: np.ndarray) -> CollectedUnrolls:
        """The last T transitions of these environments."""
        times = np.arange(self._time - self._length, self._time + 1)[:, None]
        steps = _taken(self._steps, times % self._ring, rows)
        acted = _taken(self._acted, times[:-1] % self._length, rows)
        padding = np.maximum(self._length - self._age_steps[rows], 0)
        is_padding = np.arange(self._length + 1)[:, None] < padding
        for leaf in tree.flatten(steps):
            leaf[is_padding] = 0
        steps.step_type[is_padding] = LAST
        for leaf in tree.flatten(acted):
            leaf[is_padding[:-1]] = 0
        if self._frame_stack > 1:
            steps = steps._replace(observation=self._with_frames(steps.observation, padding, rows))
        goes_on = padding == 0
        state = tree.map_structure(
            lambda leaf: np.where(goes_on.reshape(-1, *[1] * (leaf.ndim - 1)), leaf[rows], 0),
            self._policy_states[0],
        )
        state = tree.map_structure(lambda a, b: a.astype(b.dtype), state, self._policy_states[0])
        version = self._versions[max(len(self._versions) - 1 - self._period, 0)]
        return CollectedUnrolls(
            *(steps, acted, state, version, clocks.unix_secs()),
            release=lambda: None,  # the arrays are nobody's
            environments=rows,
        )

    def _with_frames(self, observation, padding: np.ndarray, rows: np.ndarray):
        """`Frames` with those of the k - 1 steps before, and no others than the stacks show."""
        before = self._frame_stack - 1
        times = np.arange(self._time - self._length - before, self._time + 1)[:, None]
        frames = _taken(self._steps.observation.frames, times % self._ring, rows)
        depth = observation.depth[padding, np.arange(len(rows))]
        first_shown = padding + before + 1 - depth
        is_hidden = (padding > 0) & (np.arange(len(times))[:, None] < first_shown)
        frames[is_hidden] = 0
        return observation._replace(frames=frames)


def _write(arrays: Nest, position: int, values: Nest) -> None:
    for target, leaf in zip(tree.flatten(arrays), tree.flatten(values)):
        target[position] = leaf


def _taken(arrays: Nest, positions: np.ndarray, rows: np.ndarray) -> Nest:
    """A copy of [T, N, ...] at positions [T', 1] and rows [M]: [T', M, ...]."""
    return tree.map_structure(lambda leaf: leaf[positions, rows], arrays)
