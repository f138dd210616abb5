"""Collects blocks of rows from many streams into batches, and computes each batch once.

A batch leaves when it has as many rows as are wanted, or when its oldest block has waited for the
time limit, so that nobody waits long for one who is slow or dead (SEED RL's own batching has no
limit). While nothing is free to compute it, it goes on filling.
"""

from __future__ import annotations

import asyncio
import collections
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent import futures

import numpy as np

from tfdrl.errors import TfdrlError
from tfdrl.runtime.futures import settle
from tfdrl.runtime.host_tensors import aligned_empty

#: Two changes of threads, on a busy machine.
_QUICK_SECS = 0.0003


class BatcherStoppedError(TfdrlError):
    """The batcher was closed while a block waited."""


class _Batch:
    """Arrays [rows, ...] that blocks are copied into, and who waits for what is computed."""

    def __init__(self, leaves: Sequence[tuple[tuple[int, ...], np.dtype]], rows: int):
        self.arrays = [aligned_empty((rows, *shape), dtype) for shape, dtype in leaves]
        for array in self.arrays:
            array[...] = 0
        self.count = 0  # rows of blocks
        self.places: list[asyncio.Future] = []
        self.is_late = False
        self.timer: asyncio.TimerHandle | None = None


class Batcher:
    """Batches of at most `max_rows` rows. For coroutines of one event loop.

    Args:
      leaves: shape, without the batch dimension, and dtype of each input array.
      compute: `compute(arrays, count, slot) -> outputs`: arrays of [padded, ...] whose first
        `count` rows mean something, padded to one of `sizes`; outputs are arrays of
        [padded, ...] that stay valid. Slots, 0 to `slots` - 1, take turns; at any time there is
        one call for each at most, from a thread of its own.
      max_rows: of one batch; a block has at most as many.
      rows_wanted: `rows_wanted() -> int`: with so many a batch leaves at once.
      rows_present: `rows_present() -> int`: all that there can be; a batch with so many is computed
        by the event loop itself, which has nothing else to do then. So is one that takes less time
        than a change of threads.
      time_limit_secs: after which a batch leaves as it is.
      slots: batches that are computed at the same time.
      sizes: rows of padded batches, the largest at least `max_rows`; None for 1, 2, 4, ...

    Attributes:
      statistics: what happened since it was last taken.
    """

    def __init__(
        self,
        leaves: Sequence[tuple[tuple[int, ...], np.dtype]],
        compute: Callable[[Sequence[np.ndarray], int, int], Sequence[np.ndarray]],
        *,
        max_rows: int,
        rows_wanted: Callable[[], int],
        rows_present: Callable[[], int] = lambda: sys.maxsize,
        time_limit_secs: float,
        slots: int = 1,
        sizes: Sequence[int] | None = None,
    ):
        self._sizes = sorted(sizes or padded_sizes(max_rows))
        self._compute, self._max_rows = compute, max_rows
        self._rows_wanted, self._rows_present = rows_wanted, rows_present
        self._time_limit_secs = time_limit_secs
        # By padded size and slot. A slot's first batch of a size may have to be compiled, for which
        # the loop has no time.
        self._took_secs: dict[tuple[int, int], float] = {}
        self._will_look = False
        # One is filled while others are computed.
        self._free = [_Batch(leaves, self._sizes[-1]) for _ in range(slots + 1)]
        self._slots = collections.deque(range(slots))
        self._open: _Batch | None = None
        self._sealed: collections.deque[_Batch] = collections.deque()
        self._want_room: collections.deque[asyncio.Future] = collections.deque()
        self._threads = futures.ThreadPoolExecutor(slots, thread_name_prefix="inference")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_closed = False
        self.statistics = Statistics()

    async def compute(self, arrays: Sequence[np.ndarray]) -> tuple[Sequence[np.ndarray], slice]:
        """Computes a block of rows in a batch with others'; waits for it.

        Args:
          arrays: [n, ...] each, n at most `max_rows`; may change after the first suspension.

        Returns the outputs and the slice of their rows that belongs to this block.

        Raises:
          BatcherStoppedError: the batcher was closed.
          Exception: what `compute` raised, for all blocks of the batch.
        """
        rows = len(arrays[0])
        start_secs = time.monotonic()
        while (batch := self._batch_with_room(rows)) is None:
            self._want_room.append(self._loop.create_future())
            await self._want_room[-1]
        begin, batch.count = batch.count, batch.count + rows
        for array, given in zip(batch.arrays, arrays):
            array[begin : begin + rows] = given
        place = self._loop.create_future()
        batch.places.append(place)
        if not self._will_look:
            # After all that is ready by now: it goes with this block.
            self._will_look = True
            self._loop.call_soon(self._look)
        outputs = await place
        self.statistics.add_latency(time.monotonic() - start_secs)
        return outputs, slice(begin, begin + rows)

    def _look(self) -> None:
        self._will_look = False
        self.look_again()

    def look_again(self) -> None:
        """Lets the open batch leave if it is time and there is a slot."""
        batch = self._open
        if batch is None or not self._slots or self._sealed:
            return
        if batch.is_late or batch.count >= min(self._rows_wanted(), self._max_rows):
            self._seal()

    def close(self) -> None:
        """Blocks that wait, or come, get BatcherStoppedError. From any thread."""
        self._is_closed = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._send_away)
        self._threads.shutdown()

    def _batch_with_room(self, rows: int) -> _Batch | None:
        if self._is_closed:
            raise BatcherStoppedError("inference has ended")
        if self._open is not None and self._open.count + rows > self._max_rows:
            self._seal()
        self._loop = asyncio.get_running_loop()
        if self._open is None and self._free:
            self._open = self._free.pop()
            self._open.timer = self._loop.call_later(
                self._time_limit_secs, self._be_late, self._open
            )
        return self._open

    def _be_late(self, batch: _Batch) -> None:
        if batch is self._open:
            batch.is_late = True
            self.look_again()

    def _seal(self) -> None:
        """Closes the open batch, which leaves as soon as there is a slot."""
        batch, self._open = self._open, None
        batch.timer.cancel()
        is_full = batch.count >= min(self._rows_wanted(), self._max_rows)
        self.statistics.add_batch(batch.count, batch.is_late and not is_full)
        self._sealed.append(batch)
        self._start()

    def _start(self) -> None:
        while self._sealed and self._slots and not self._is_closed:
            batch, slot = self._sealed.popleft(), self._slots.popleft()
            padded = next(size for size in self._sizes if size >= batch.count)
            took_secs = self._took_secs.get((padded, slot))
            is_known = took_secs is not None
            if is_known and (took_secs < _QUICK_SECS or batch.count >= self._rows_present()):
                self._finish(batch, slot, *self._run(batch, padded, slot))
            else:
                self._threads.submit(self._work, batch, padded, slot)

    def _work(self, batch: _Batch, padded: int, slot: int) -> None:
        found = self._run(batch, padded, slot)
        self._loop.call_soon_threadsafe(self._finish, batch, slot, *found)

    def _run(self, batch: _Batch, padded: int, slot: int):
        """The outputs, or the error."""
        start_secs = time.monotonic()
        try:
            arrays = [array[:padded] for array in batch.arrays]
            outputs = self._compute(arrays, batch.count, slot)
            self._took_secs[padded, slot] = time.monotonic() - start_secs
            return outputs, None
        except BaseException as error:  # whoever waits must hear of it
            return None, error

    def _finish(self, batch: _Batch, slot: int, outputs, error: BaseException | None) -> None:
        _answer(batch, outputs, error)
        self._free.append(batch)
        self._slots.append(slot)
        self._start()
        self.look_again()
        self._wake()

    def _wake(self) -> None:
        """Lets those try again who found no room."""
        while self._want_room:
            settle(self._want_room.popleft())

    def _send_away(self) -> None:
        for batch in [*self._sealed, *([self._open] if self._open else [])]:
            batch.timer.cancel()
            _answer(batch, None, BatcherStoppedError("inference has ended"))
        self._sealed.clear()
        self._open = None
        self._wake()


def _answer(batch: _Batch, outputs, error: BaseException | None) -> None:
    for place in batch.places:
        settle(place, outputs, error)
    batch.count, batch.places, batch.is_late = 0, [], False


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
