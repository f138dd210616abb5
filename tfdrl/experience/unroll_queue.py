"""The learner's own queue: blocks of unrolls from many actors, made into batches.

A batch's arrays are used again, some batches later; TensorFlow reads them where they are.
"""

from __future__ import annotations

import asyncio
import collections
import threading
import time

import numpy as np
import tree

from tfdrl.errors import TfdrlError
from tfdrl.experience.unrolls import CollectedUnrolls
from tfdrl.runtime.futures import settle
from tfdrl.runtime.host_tensors import aligned_empty
from tfdrl.types import Nest, Unrolls

#: What the learner trains on, and the one before, whose numbers its metrics may still show.
BUFFERS = 2


class ClosedError(TfdrlError):
    """The queue was closed while somebody waited."""


class UnrollQueue:
    """Blocks of unrolls in, from coroutines; batches out, to a thread; first in, first out.

    A full one makes writers wait.

    Args:
      capacity: unrolls; at least a batch. A block is let in whole while there is any room.

    Attributes:
      next_info: of the batch that was filled last: the policy's info at step T, nest of [B, ...].
      is_closed: whether nothing comes any more.
    """

    def __init__(self, capacity: int):
        self._capacity = capacity
        self._blocks: collections.deque[tuple[CollectedUnrolls, int]] = collections.deque()
        self._size, self._filled = 0, 0  # unrolls that came, and those of them in a filled batch
        self._waiting: collections.deque[tuple[asyncio.Future, CollectedUnrolls]] = (
            collections.deque()
        )
        self._changed = threading.Condition()
        self.is_closed = False
        self._buffers: collections.deque[tuple[Unrolls, Nest]] = collections.deque()
        self.next_info: Nest = ()

    def __len__(self) -> int:
        return self._size

    def put(self, unrolls: CollectedUnrolls) -> asyncio.Future | None:
        """Adds N unrolls, as soon as there is room; returns what to await until then, if not now.

        The future raises ClosedError if the queue is closed first, and so does this.
        """
        with self._changed:
            if self.is_closed:
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
        unrolls = self.fill(batch_size, timeout_secs)
        if unrolls is not None:
            self.free(batch_size)
        return unrolls

    def fill(self, batch_size: int, timeout_secs: float, buffers: int = BUFFERS) -> Unrolls | None:
        """As `take`, but the unrolls keep their room in the queue until `free`.

        The arrays are good until the call that is `buffers` calls later, of the same number.
        """
        deadline = time.monotonic() + timeout_secs
        with self._changed:
            while self._size - self._filled < batch_size:
                left_secs = deadline - time.monotonic()
                if self.is_closed or left_secs <= 0:
                    return None
                self._changed.wait(left_secs)
            parts = self._remove(batch_size)
        if len(self._buffers) < buffers:
            self._buffers.append(_empty_batch(parts[0][0], batch_size))
        self._buffers.rotate(1)
        unrolls, self.next_info = self._buffers[0]
        _fill(unrolls, self.next_info, parts)
        return unrolls

    def free(self, count: int) -> None:
        """So many of those that were filled are with the learner: there is room for others."""
        with self._changed:
            self._size -= count
            self._filled -= count
            while self._waiting and self._size < self._capacity:
                place, unrolls = self._waiting.popleft()
                self._add(unrolls)
                _tell(place, None)

    def close(self) -> None:
        """Who waits, or comes, is sent away."""
        with self._changed:
            self.is_closed = True
            self._changed.notify_all()
            while self._waiting:
                _tell(self._waiting.popleft()[0], ClosedError("the queue of unrolls is closed"))

    def _add(self, unrolls: CollectedUnrolls) -> None:
        self._blocks.append((unrolls, 0))
        self._size += unrolls.rows
        self._changed.notify_all()

    def _remove(self, count: int) -> list[tuple[CollectedUnrolls, slice]]:
        self._filled += count
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
    place.get_loop().call_soon_threadsafe(settle, place, None, error)


def _empty_batch(unrolls: CollectedUnrolls, batch_size: int) -> tuple[Unrolls, Nest]:
    def rows(nest):  # of [N, ...]
        return tree.map_structure(
            lambda leaf: aligned_empty((batch_size, *leaf.shape[1:]), leaf.dtype), nest
        )

    def arrays(nest):  # of [time, N, ...]
        return tree.map_structure(
            lambda leaf: aligned_empty((batch_size, len(leaf), *leaf.shape[2:]), leaf.dtype), nest
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
