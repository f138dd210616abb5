"""Reads a dataset of a replay server ahead of the learner, and asks the server how it is."""

from __future__ import annotations

import logging
import queue
import threading

import tensorflow as tf

from tfdrl.replay.client import ReplayInfo
from tfdrl.runtime.metrics import Every, WaitingClock


def own_threads(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Gives a dataset threads of its own.

    A read that waits for Reverb must not hold one that training needs.
    """
    options = tf.data.Options()
    options.threading.private_threadpool_size = 2
    options.threading.max_intra_op_parallelism = 1
    return dataset.with_options(options)


def nothing_ahead(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Without this TensorFlow fetches, unasked, the items of six batches more."""
    options = tf.data.Options()
    options.autotune.enabled = False
    options.experimental_optimization.map_and_batch_fusion = False
    options.experimental_optimization.map_parallelization = False
    options.experimental_optimization.inject_prefetch = False
    return dataset.with_options(options)


def one_ahead(dataset: tf.data.Dataset, prefetch: int) -> tf.data.Dataset:
    """A dataset of whose elements one is made meanwhile, if `prefetch` > 1 of them may be ahead.

    With the one on its way in Reverb's stream, and those that `Samples` has ready, just so many
    are sampled before they are wanted. (In a thread of TensorFlow's: the learner's holds up ours.)
    """
    dataset = nothing_ahead(dataset)
    return dataset.prefetch(1) if prefetch > 1 else dataset


def ready_of(prefetch: int) -> int:
    """How many of `prefetch` elements ahead are neither on their way nor made by `one_ahead`."""
    return max(prefetch - 2, 0)


def in_flight_samples(samples: int, workers: int) -> int:
    """What to allow each of Reverb's workers, so that all hold `samples` together at most.

    The least is one sample each: a worker cannot be without.
    """
    return max(samples // workers, 1)


class Samples:
    """Takes batches from a dataset in a thread, so that no wait for the replay is without limit.

    Iterating over Reverb cannot be interrupted: the thread may hang, its reader never does.

    Args:
      dataset: of batches; infinite.
      ready: how many to read before they are wanted, beside what the dataset itself holds; 0: each
        is read when it is wanted.
      replay: asked for its state while waiting.
      stop: ends the waiting.
    """

    def __init__(self, dataset, ready: int, replay: ReplayInfo, stop: threading.Event):
        self._queue = queue.Queue()
        self._permits = threading.Semaphore(ready)  # to read one more
        self._reads_when_wanted, self._is_wanted = ready == 0, False
        self._replay, self._stop = replay, stop
        self._is_time_to_warn = Every(5.0)
        self.waiting = WaitingClock()
        threading.Thread(target=self._read, args=(dataset,), name="samples", daemon=True).start()

    def _read(self, dataset):
        batches = None
        while not self._stop.is_set():
            if not self._permits.acquire(timeout=0.5):
                continue
            try:
                batches = iter(dataset) if batches is None else batches
                self._queue.put(next(batches))
            except Exception as error:
                batches = None
                self._permits.release()
                logging.warning("sampling was interrupted, trying again: %s", error)
                self._stop.wait(1.0)

    def ready(self):
        """A batch that is there already, or None."""
        try:
            return self._taken(self._queue.get_nowait())
        except queue.Empty:
            self._want()
            return None

    def next(self, timeout_secs: float = 0.5):
        """The next batch; None if there was none within the time limit.

        Raises:
          UnavailableError: the replay server did not answer for its time limit.
        """
        batch = self.ready()
        if batch is not None:
            return batch
        with self.waiting:
            try:
                return self._taken(self._queue.get(timeout=timeout_secs))
            except queue.Empty:
                if self._is_time_to_warn():
                    logging.warning("the learner waits for samples: %s", self._replay.check())
                return None

    def _want(self):
        """Where batches are read when they are wanted: one is, until it came."""
        if self._reads_when_wanted and not self._is_wanted:
            self._is_wanted = True
            self._permits.release()

    def _taken(self, batch):
        if self._reads_when_wanted:
            self._is_wanted = False
        else:
            self._permits.release()
        return batch
