"""The learner's next batch, filled while it trains on the one before."""

from __future__ import annotations

import queue
import threading

from tfdrl.experience.unroll_queue import BUFFERS, UnrollQueue
from tfdrl.types import Unrolls

_BUFFERS = BUFFERS + 1  # one is filled meanwhile
_LOOK_SECS = 0.5  # how soon the thread sees that the queue was closed


class PrefetchedBatches:
    """Takes batches from a queue in a thread, one ahead.

    A prefetched batch keeps its room in the queue until it is taken: actors run ahead of the
    learner no further than without it, and the lag of the policy is the same.

    Args:
      unrolls: the queue, which nobody else takes from.
      batch_size: B.
    """

    def __init__(self, unrolls: UnrollQueue, batch_size: int):
        self._unrolls, self._batch_size = unrolls, batch_size
        self._is_wanted = threading.Semaphore(1)
        self._prefetched: queue.SimpleQueue[Unrolls | Exception] = queue.SimpleQueue()
        threading.Thread(target=self._prefetch, name="batches", daemon=True).start()

    def take(self, timeout_secs: float) -> Unrolls | None:
        """The oldest B unrolls, or None if there are not as many in time.

        The arrays are good until the next call but one. Raises what filling them raised.
        """
        try:
            batch = self._prefetched.get(timeout=timeout_secs)
        except queue.Empty:
            return None
        if isinstance(batch, Exception):
            raise batch
        self._unrolls.free(self._batch_size)
        self._is_wanted.release()
        return batch

    def _prefetch(self):
        while not self._unrolls.is_closed:
            if not self._is_wanted.acquire(timeout=_LOOK_SECS):
                continue
            try:
                self._prefetch_one()
            except Exception as error:
                self._prefetched.put(error)  # the learner's thread ends by it, and so does this
                return

    def _prefetch_one(self):
        while not self._unrolls.is_closed:
            batch = self._unrolls.fill(self._batch_size, _LOOK_SECS, _BUFFERS)
            if batch is not None:
                return self._prefetched.put(batch)
