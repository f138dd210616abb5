"""Collects blocks of rows from many threads into batches, and computes each batch once.

A batch leaves when it is full or when its oldest block has waited for the time limit, so that
nobody waits long for one who is slow or dead (SEED RL's own batching has no limit).
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tfdrl.errors import TfdrlError


class StoppedError(TfdrlError):
    """The batcher was closed while a block waited."""


class _Batch:
    """Arrays [rows, ...] that blocks are copied into, and what was computed of them."""

    def __init__(self, leaves: Sequence[tuple[tuple[int, ...], np.dtype]], rows: int):
        self.arrays = [np.zeros((rows, *shape), dtype) for shape, dtype in leaves]
        self.begin()

    def begin(self) -> None:
        self.count = 0  # rows taken by blocks
        self.copying = 0  # blocks whose rows are being written
        self.first_secs = time.monotonic()  # when its first block came
        self.is_sealed = False
        self.result = _Result()


class _Result:
    """What the threads of a batch wait for; outlives the batch's arrays."""

    def __init__(self):
        self.is_there = threading.Event()
        self.outputs: Any = None
        self.error: BaseException | None = None


class Batcher:
    """Batches of at most `max_rows` rows.

    A full batch is computed by the thread whose block completed it, which saves two changes of
    threads; one whose time is over, or that has to wait for its turn, by a thread for that.

    Args:
      leaves: shape, without the batch dimension, and dtype of each input array.
      compute: `compute(arrays, count, slot) -> outputs`: arrays of [padded, ...] whose first
        `count` rows mean something, padded to one of `sizes`; outputs are arrays of
        [padded, ...] that stay valid. Slots, 0 to `slots` - 1, take turns; at any time there is
        one call for each at most.
      max_rows: of one batch; a block has at most as many.
      rows_wanted: `rows_wanted() -> int`: with so many a batch leaves at once.
      time_limit_secs: after which a batch leaves as it is.
      slots: batches that are computed at the same time.
      sizes: rows of padded batches, the largest at least `max_rows`; None for 1, 2, 4, ...

    Attributes:
      statistics: what happened since it was last taken.
    """

    def __init__(
        self,
        leaves: Sequence[tuple[tuple[int, ...], np.dtype]],
        compute: Callable[[Sequence[np.ndarray], int, int], Any],
        *,
        max_rows: int,
        rows_wanted: Callable[[], int],
        time_limit_secs: float,
        slots: int = 1,
        sizes: Sequence[int] | None = None,
    ):
        self._sizes = sorted(sizes or padded_sizes(max_rows))
        self._compute, self._max_rows = compute, max_rows
        self._rows_wanted, self._time_limit_secs = rows_wanted, time_limit_secs
        self._changed = threading.Condition()
        # One is filled while others are computed.
        self._free = [_Batch(leaves, self._sizes[-1]) for _ in range(slots + 1)]
        self._slots = collections.deque(range(slots))
        self._open: _Batch | None = None
        self._sealed: collections.deque[_Batch] = collections.deque()
        self._is_closed = False
        self.statistics = Statistics()
        self._threads = [
            threading.Thread(target=self._work, name=f"inference-{i}", daemon=True)
            for i in range(slots)
        ]
        for thread in self._threads:
            thread.start()

    def compute(self, arrays: Sequence[np.ndarray]) -> tuple[Any, slice]:
        """Computes a block of rows in a batch with others'; waits for it.

        Args:
          arrays: [n, ...] each, n at most `max_rows`; not needed after the return.

        Returns the outputs and the slice of their rows that belongs to this block.

        Raises:
          StoppedError: the batcher was closed.
          Exception: what `compute` raised, for all blocks of the batch.
        """
        rows = len(arrays[0])
        start_secs = time.monotonic()
        batch, begin = self._reserve(rows)
        result = batch.result
        for array, given in zip(batch.arrays, arrays):
            array[begin : begin + rows] = given
        with self._changed:
            batch.copying -= 1
            if batch is self._open and self._is_full(batch):
                self._seal(is_late=False)
            slot = self._slot_for(batch)
            if slot is None and batch.is_sealed:
                self._changed.notify_all()  # the threads look at it
        if slot is not None:
            self._run(batch, slot)
        result.is_there.wait()
        if result.error is not None:
            raise result.error
        self.statistics.add_latency(time.monotonic() - start_secs)
        return result.outputs, slice(begin, begin + rows)

    def close(self) -> None:
        """Ends the threads; blocks that wait get StoppedError."""
        with self._changed:
            self._is_closed = True
            waiting = [*self._sealed, *([self._open] if self._open else [])]
            self._sealed.clear()
            self._open = None
            self._changed.notify_all()
        for batch in waiting:
            _finish(batch.result, error=StoppedError("inference has ended"))
        for thread in self._threads:
            thread.join(timeout=5.0)

    def _reserve(self, rows: int) -> tuple[_Batch, int]:
        with self._changed:
            while True:
                if self._is_closed:
                    raise StoppedError("inference has ended")
                if self._open is not None:
                    if self._open.count + rows <= self._max_rows:
                        break
                    self._seal(is_late=False)
                    self._changed.notify_all()
                if self._free:
                    self._open = self._free.pop()
                    self._open.begin()
                    if rows < self._rows_wanted():
                        self._changed.notify_all()  # somebody has to mind its time limit
                else:
                    self._changed.wait()
            batch, begin = self._open, self._open.count
            batch.count += rows
            batch.copying += 1
            return batch, begin

    def _is_full(self, batch: _Batch) -> bool:
        return batch.count >= min(self._rows_wanted(), self._max_rows)

    def _seal(self, is_late: bool) -> None:
        self.statistics.add_batch(self._open.count, is_late)
        self._open.is_sealed = True
        self._sealed.append(self._open)
        self._open = None

    def _slot_for(self, batch: _Batch) -> int | None:
        """A slot for a batch whose turn it is, which is then taken off the queue."""
        is_next = batch.is_sealed and self._sealed and self._sealed[0] is batch
        if not is_next or batch.copying or not self._slots:
            return None
        self._sealed.popleft()
        return self._slots.popleft()

    def _next(self) -> tuple[_Batch, int] | None:
        """Waits for a batch that may leave, and its slot; None when closed."""
        with self._changed:
            while not self._is_closed:
                left_secs = None
                if self._open is not None:
                    left_secs = self._open.first_secs + self._time_limit_secs - time.monotonic()
                    is_full = self._is_full(self._open)
                    if left_secs <= 0 or (is_full and not self._open.copying):
                        self._seal(is_late=not is_full)
                        left_secs = None
                if self._sealed:
                    batch = self._sealed[0]
                    slot = self._slot_for(batch)
                    if slot is not None:
                        return batch, slot
                self._changed.wait(left_secs)
            return None

    def _work(self) -> None:
        while (found := self._next()) is not None:
            self._run(*found)

    def _run(self, batch: _Batch, slot: int) -> None:
        count, result = batch.count, batch.result
        padded = next(size for size in self._sizes if size >= count)
        try:
            outputs = self._compute([array[:padded] for array in batch.arrays], count, slot)
        except BaseException as error:  # whoever waits must hear of it
            _finish(result, error=error)
        else:
            _finish(result, outputs)
        with self._changed:
            self._free.append(batch)
            self._slots.append(slot)
            self._changed.notify_all()


class Statistics:
    """Counts of batches and times of blocks, taken now and then."""

    _KEPT = 10_000

    def __init__(self):
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._rows = self._batches = self._late = 0
        self._latencies_secs: list[float] = []

    def add_batch(self, rows: int, is_late: bool) -> None:
        """A batch left, because its time was over if `is_late`."""
        with self._lock:
            self._rows += rows
            self._batches += 1
            self._late += is_late

    def add_latency(self, secs: float) -> None:
        """A block waited so long, from its arrival to its outputs."""
        if len(self._latencies_secs) < self._KEPT:
            self._latencies_secs.append(secs)

    def take(self) -> dict[str, float]:
        """Metrics since the last call; none if nothing happened."""
        with self._lock:
            rows, batches, late = self._rows, self._batches, self._late
            latencies_secs = np.array(self._latencies_secs)
            self._clear()
        values = {}
        if batches:
            values["inference/batch_rows"] = rows / batches
            values["inference/late_share"] = late / batches
        if len(latencies_secs):
            p50, p99 = np.percentile(latencies_secs, [50, 99])
            values["inference/p50_ms"], values["inference/p99_ms"] = 1e3 * p50, 1e3 * p99
        return values


def padded_sizes(max_rows: int) -> list[int]:
    """1, 2, 4, ... up to `max_rows`, and it."""
    sizes = [1]
    while sizes[-1] * 2 < max_rows:
        sizes.append(sizes[-1] * 2)
    return sorted({*sizes, max_rows})


def _finish(result: _Result, outputs: Any = None, error: BaseException | None = None) -> None:
    result.outputs, result.error = outputs, error
    result.is_there.set()
