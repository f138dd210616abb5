"""Unrolls inside the learner's process: collected step by step, queued, and made into batches.

All arrays are used again: an actor's for its unroll after next, a batch's for the next but one. A
new array of some megabytes costs more, in page faults, than filling it.
"""

from __future__ import annotations

import asyncio
import collections
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tree

from tfdrl.errors import TfdrlError
from tfdrl.types import Nest, TimeSteps, Unrolls

#: The learner may still read the batch before.
_BUFFERS = 2


class ClosedError(TfdrlError):
    """The queue was closed while somebody waited."""


class CollectedUnrolls(NamedTuple):
    """N unrolls of T transitions, time-major; see `types.Unrolls`.

    steps         TimeSteps of [T+1, N, ...]
    acted         pair (action, info), nests of [T, N, ...]
    policy_state  nest of [N, ...] before step 0
    version       of the parameters that chose the first action after the overlap
    time_secs     Unix time when they were complete
    release       to be called when the arrays are not needed any more
    next_info     of the policy at step T, nest of [N, ...]; () until it has acted there
    """

    steps: TimeSteps
    acted: tuple[Nest, Nest]
    policy_state: Nest
    version: int
    time_secs: float
    release: Callable[[], None]
    next_info: Nest = ()

    @property
    def rows(self) -> int:
        """N."""
        return self.steps.reward.shape[1]


class UnrollCollector:
    """Cuts the steps of N environments into unrolls of full length, through episode ends.

    The last `overlap` transitions of an unroll are the first of the next, and the step after
    them: without overlap step T is step 0 of the next. The first unroll of a run has zeros in
    place of the transitions that it would share (SEED RL's release; R2D2's burn-in).

    Args:
      unroll_steps: T, the overlap included.
      overlap: below T.
    """

    def __init__(self, unroll_steps: int, overlap: int = 0):
        self._unroll_steps, self._overlap = unroll_steps, overlap
        self._free: collections.deque[_Arrays] = collections.deque()
        self._arrays: _Arrays | None = None
        self._position = 0
        self._policy_state = self._next_policy_state = self._version = None

    def start(self, now: TimeSteps, policy_state: Nest, version: int) -> None:
        """Starts a run.

        Args:
          now: the first N steps.
          policy_state: before them, nest of [N, ...]; must not be written to afterwards.
          version: of the parameters that act next.
        """
        self._arrays = _Arrays(now, self._unroll_steps, self._overlap)
        self._position = self._overlap
        self._arrays.write_step(self._position, now)
        self._policy_state = self._next_policy_state = policy_state
        self._version = version

    def add(
        self, action: Nest, info: Nest, then: TimeSteps, policy_state: Nest, version: int
    ) -> CollectedUnrolls | None:
        """Adds what was done at the last steps and what it led to; returns complete unrolls.

        Args:
          action, info: nests of [N, ...].
          then: N steps.
          policy_state: before them; must not be written to afterwards.
          version: of the parameters that act next.
        """
        arrays, start_of_next = self._arrays, self._unroll_steps - self._overlap
        arrays.write_acted(self._position, (action, info))
        self._position += 1
        arrays.write_step(self._position, then)
        if self._position == start_of_next:
            self._next_policy_state = policy_state
        if self._position < self._unroll_steps:
            return None
        complete = CollectedUnrolls(
            *(arrays.steps, arrays.acted, self._policy_state, self._version, time.time()),
            release=lambda: self._free.append(arrays),
        )
        self._arrays = (
            self._free.pop() if self._free else _Arrays(then, self._unroll_steps, self._overlap)
        )
        self._arrays.continue_from(arrays, start_of_next)
        self._position = self._overlap
        self._policy_state, self._version = self._next_policy_state, version
        return complete


class _Arrays:
    """Room for one unroll of N environments; the part before the first step is zero."""

    def __init__(self, now: TimeSteps, unroll_steps: int, overlap: int):
        self._unroll_steps, self._overlap = unroll_steps, overlap
        self.steps = _empty_like(now, unroll_steps + 1)
        self.acted = None  # known with the first action
        self._step_leaves, self._acted_leaves = tree.flatten(self.steps), []
        for leaf in self._step_leaves:
            leaf[:overlap] = 0

    def write_step(self, position: int, steps: TimeSteps) -> None:
        for target, leaf in zip(self._step_leaves, tree.flatten(steps)):
            target[position] = leaf

    def write_acted(self, position: int, acted: tuple[Nest, Nest]) -> None:
        if self.acted is None:
            self._make_acted(_empty_like(acted, self._unroll_steps))
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
        for target, leaf in zip(self._acted_leaves, other._acted_leaves):
            target[:overlap] = leaf[start:]

    def _make_acted(self, acted: tuple[Nest, Nest]) -> None:
        self.acted, self._acted_leaves = acted, tree.flatten(acted)


def _empty_like(nest: Nest, length: int) -> Nest:
    return tree.map_structure(lambda leaf: np.empty((length, *leaf.shape), leaf.dtype), nest)


class UnrollQueue:
    """Blocks of unrolls in, from coroutines; batches out, to a thread; first in, first out.

    A full one makes writers wait.

    Args:
      capacity: unrolls; at least a batch. A block is let in whole while there is any room.

    Attributes:
      next_info: of the batch that was taken last: the policy's info at step T, nest of [B, ...].
    """

    def __init__(self, capacity: int):
        self._capacity = capacity
        self._blocks: collections.deque[tuple[CollectedUnrolls, int]] = collections.deque()
        self._size = 0
        self._waiting: collections.deque[tuple[asyncio.Future, CollectedUnrolls]] = (
            collections.deque()
        )
        self._changed = threading.Condition()
        self._is_closed = False
        self._buffers: collections.deque[tuple[Unrolls, Nest]] = collections.deque()
        self.next_info: Nest = ()

    def __len__(self) -> int:
        return self._size

    def put(self, unrolls: CollectedUnrolls) -> asyncio.Future | None:
        """Adds N unrolls, as soon as there is room; returns what to await until then, if not now.

        The future raises ClosedError if the queue is closed first, and so does this.
        """
        with self._changed:
            if self._is_closed:
                raise ClosedError("the queue of unrolls is closed")
            if self._size < self._capacity:
                self._add(unrolls)
                return None
            self._waiting.append((asyncio.get_running_loop().create_future(), unrolls))
            return self._waiting[-1][0]

    def take(self, batch_size: int, timeout_secs: float) -> Unrolls | None:
        """The oldest `batch_size` unrolls, or None if there are not as many in time.

        The arrays are good until the next call but one. From one thread, one size.
        """
        deadline = time.monotonic() + timeout_secs
        with self._changed:
            while self._size < batch_size:
                left_secs = deadline - time.monotonic()
                if self._is_closed or left_secs <= 0:
                    return None
                self._changed.wait(left_secs)
            parts = self._remove(batch_size)
            while self._waiting and self._size < self._capacity:
                place, unrolls = self._waiting.popleft()
                self._add(unrolls)
                _tell(place, None)
        if len(self._buffers) < _BUFFERS:
            self._buffers.append(_empty_batch(parts[0][0], batch_size))
        self._buffers.rotate(1)
        unrolls, self.next_info = self._buffers[0]
        _fill(unrolls, self.next_info, parts)
        return unrolls

    def close(self) -> None:
        """Who waits, or comes, is sent away."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
            while self._waiting:
                _tell(self._waiting.popleft()[0], ClosedError("the queue of unrolls is closed"))

    def _add(self, unrolls: CollectedUnrolls) -> None:
        self._blocks.append((unrolls, 0))
        self._size += unrolls.rows
        self._changed.notify_all()

    def _remove(self, count: int) -> list[tuple[CollectedUnrolls, slice]]:
        self._size -= count
        parts = []
        while count:
            unrolls, start = self._blocks.popleft()
            stop = min(unrolls.rows, start + count)
            if stop < unrolls.rows:
                self._blocks.appendleft((unrolls, stop))
            parts.append((unrolls, slice(start, stop)))
            count -= stop - start
        return parts


def _tell(place: asyncio.Future, error: Exception | None) -> None:
    """Ends a writer's wait, from another thread than his."""

    def tell():
        if place.done():  # his stream has gone
            return
        if error is None:
            place.set_result(None)
        else:
            place.set_exception(error)

    place.get_loop().call_soon_threadsafe(tell)


def _empty_batch(unrolls: CollectedUnrolls, batch_size: int) -> tuple[Unrolls, Nest]:
    def rows(nest):  # of [N, ...]
        return tree.map_structure(
            lambda leaf: np.empty((batch_size, *leaf.shape[1:]), leaf.dtype), nest
        )

    def arrays(nest):  # of [time, N, ...]
        return tree.map_structure(
            lambda leaf: np.empty((batch_size, len(leaf), *leaf.shape[2:]), leaf.dtype), nest
        )

    action, info = unrolls.acted
    batch = Unrolls(
        steps=arrays(unrolls.steps),
        action=arrays(action),
        info=arrays(info),
        policy_state=rows(unrolls.policy_state),
        version=np.empty(batch_size, np.int64),
        time_secs=np.empty(batch_size, np.float64),
    )
    return batch, rows(unrolls.next_info)


def _fill(batch: Unrolls, next_info: Nest, parts: list[tuple[CollectedUnrolls, slice]]) -> None:
    over_time = tree.flatten((batch.steps, (batch.action, batch.info)))
    by_row = tree.flatten((batch.policy_state, next_info))
    start = 0
    for unrolls, rows in parts:
        place = slice(start, start + rows.stop - rows.start)
        start = place.stop
        for target, leaf in zip(over_time, tree.flatten((unrolls.steps, unrolls.acted))):
            target[place] = leaf[:, rows].swapaxes(0, 1)
        given = tree.flatten((unrolls.policy_state, unrolls.next_info))
        for target, leaf in zip(by_row, given):
            target[place] = leaf[rows]
        batch.version[place] = unrolls.version
        batch.time_secs[place] = unrolls.time_secs
        if rows.stop == unrolls.rows:
            unrolls.release()
