"""The learner's next batch, filled while it trains on the one before."""

from __future__ import annotations

import queue
import threading

from tfdrl.experience.unroll_queue import UnrollQueue
from tfdrl.types import Unrolls

_LOOK_SECS = 0.5  # how soon the thread sees that the queue was closed


class PreparedBatches:
    """Takes batches from a queue in a thread, one ahead.

    A batch that is prepared keeps its room in the queue until it is taken: actors run ahead of the
    learner no further than without it, and the lag of the policy is the same.

    Args:
      unrolls: the queue, which nobody else takes from.
      batch_size: B.
    """

    def __init__(self, unrolls: UnrollQueue, batch_size: int):
        self._unrolls, self._batch_size = unrolls, batch_size
        self._is_wanted = threading.Semaphore(1)
        self._prepared: queue.SimpleQueue[Unrolls | Exception] = queue.SimpleQueue()
        threading.Thread(target=self._prepare, name="batches", daemon=True).start()

    def take(self, timeout_secs: float) -> Unrolls | None:
        """The oldest B unrolls, or None if there are not as many in time.

        The arrays are good until the next call but one. Raises what filling them raised.
        """
        try:
            batch = self._prepared.get(timeout=timeout_secs)
        except queue.Empty:
            return None
        if isinstance(batch, Exception):
            raise batch
        self._unrolls.free(self._batch_size)
        self._is_wanted.release()
        return batch

    def _prepare(self):
        while not self._unrolls.is_closed:
            if not self._is_wanted.acquire(timeout=_LOOK_SECS):
                continue
            try:
                self._prepare_one()
            except Exception as error:
                self._prepared.put(error)  # the learner's thread ends by it, and so does this
                return

    def _prepare_one(self):
        while not self._unrolls.is_closed:
            batch = self._unrolls.fill(self._batch_size, _LOOK_SECS)
            if batch is not None:
                return self._prepared.put(batch)
