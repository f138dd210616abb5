"""Reads a dataset of a replay server ahead of the learner, and asks the server how it is."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence

import tensorflow as tf

from tfdrl.errors import ConfigurationError, UnavailableError
from tfdrl.parts import replay_client
from tfdrl.parts.metrics import Every, WaitingClock
from tfdrl.parts.replay_tables import TABLE, check_signature
from tfdrl.topology import Address


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


class ReplayInfo:
    """Asks a replay server how it is, with a time limit.

    Args:
      address: of the replay server.
      timeout_secs: how long it may be unreachable before that is an error.
      table: name of the table to look at.

    Attributes:
      min_size: items from which on it is sampled; None before the first answer.
    """

    def __init__(self, address: Address, timeout_secs: float, table: str = TABLE):
        self._client = replay_client.connect(address)
        self._address, self._timeout_secs = address, timeout_secs
        self._table = table
        self._answered_secs = time.monotonic()
        self.min_size: int | None = None

    def wait(self, signature, role: str, stop: threading.Event):
        """Waits for the server to come up and compares its items with this role's.

        Raises:
          UnavailableError: nothing answered within the time limit.
          ConfigurationError: its items are of another environment.
        """
        warning_is_due = Every(5.0)
        self._answered_secs = time.monotonic()
        while not stop.is_set():
            info = self.table(timeout_secs=2)
            if info is not None:
                check_signature(info.signature, signature, str(self._address))
                return info
            if warning_is_due():
                logging.warning("%s waits for the replay server at %s", role, self._address)
            self._give_up_after_limit(role)
            stop.wait(0.25)
        return None

    def table(self, timeout_secs: int = 2):
        """Reverb's TableInfo, or None if the server does not answer in time."""
        try:
            info = self._client.server_info(timeout=timeout_secs)
        except Exception:
            return None
        self._answered_secs = time.monotonic()
        if self._table not in info:
            raise ConfigurationError(
                f"the server at {self._address} has no table {self._table!r}, only {sorted(info)}"
            )
        self.min_size = info[self._table].rate_limiter_info.min_size_to_sample
        return info[self._table]

    def check(self) -> str:
        """A sentence on the table's state. Raises UnavailableError past the time limit."""
        info = self.table()
        if info is None:
            self._give_up_after_limit("the learner")
            return f"the replay server at {self._address} does not answer"
        if info.max_times_sampled == 1:  # a queue
            holds = f"holds {info.current_size} items" if info.current_size else "is empty"
            return f"the queue {holds}: are the actors there, and fast enough?"
        least = info.rate_limiter_info.min_size_to_sample
        if info.current_size < least:
            return f"the replay holds {info.current_size} items and is sampled from {least} on"
        return (
            f"the replay holds {info.current_size} items, but its rate limiter wants more of the "
            "actors first: are they there, and fast enough?"
        )

    def size(self) -> int | None:
        """Items in the table; None while the server does not answer."""
        info = self.table()
        return None if info is None else info.current_size

    def _give_up_after_limit(self, role: str) -> None:
        silent_secs = time.monotonic() - self._answered_secs
        if silent_secs > self._timeout_secs:
            raise UnavailableError(
                f"{role}: the replay server at {self._address} did not answer for "
                f"{silent_secs:.0f} s"
            )


def say_why(infos: Sequence[ReplayInfo]) -> None:
    """Warns of each server why it gives no samples.

    Raises:
      UnavailableError: none has answered for its time limit.
    """
    failures = []
    for info in infos:
        try:
            logging.warning("the learner waits for samples: %s", info.check())
        except UnavailableError as error:
            failures.append(error)
    if len(failures) == len(infos):
        raise failures[0]
