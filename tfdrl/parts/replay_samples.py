"""Reads prioritised batches from Reverb ahead of the learner, and writes priorities back."""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Any, NamedTuple

import numpy as np
import reverb
import tensorflow as tf
from tf_agents.trajectories import time_step, trajectory

from tfdrl.errors import ConfigurationError, UnavailableError
from tfdrl.ops import priorities as priorities_ops
from tfdrl.parts.metrics import Every, WaitingClock
from tfdrl.parts.replay_tables import (
    DISCOUNT,
    N_STEP_RETURN,
    TABLE,
    TIME_SECS,
    VERSION,
    TransitionItem,
    check_signature,
    is_prioritized,
)
from tfdrl.parts.transitions import TIME_PERIOD_SECS
from tfdrl.topology import Address


class SampledBatch(NamedTuple):
    """K batches of B transitions, as the learner takes them.

    experience  Trajectory of [K, B, 2, ...]: s_t and s_{t+m}, n-step return and discount at 0
    weights     <float32>[K, B], importance weights
    keys        <uint64>[K, B], of the items in Reverb
    version     <float32>[K, B], of the parameters that acted
    age_secs    <float32>[K, B], since the actor wrote the item
    """

    experience: Any
    weights: tf.Tensor
    keys: tf.Tensor
    version: tf.Tensor
    age_secs: tf.Tensor


def to_trajectory(item: TransitionItem) -> trajectory.Trajectory:
    """TransitionItem of [B, ...] -> Trajectory of [B, 2, ...] (see `NStepDqnAgent`)."""
    batch = tf.shape(item.step)[0]
    twice = lambda leaf: tf.repeat(leaf, 2, axis=1)  # noqa: E731
    columns = twice(item.step)
    mid = tf.fill([batch, 2], time_step.StepType.MID)
    return trajectory.Trajectory(
        step_type=mid,
        observation=item.observation,
        action=tf.nest.map_structure(twice, item.action),
        policy_info=(),
        next_step_type=mid,
        reward=columns[..., N_STEP_RETURN],
        discount=columns[..., DISCOUNT],
    )


def _elapsed_secs(then_secs: tf.Tensor, now_secs: tf.Tensor) -> tf.Tensor:
    """now - then, both modulo TIME_PERIOD_SECS; 0 where the actor's clock is a little ahead."""
    margin_secs = 600.0
    age_secs = (now_secs - then_secs + margin_secs) % TIME_PERIOD_SECS - margin_secs
    return tf.maximum(age_secs, 0.0)


def sample_dataset(
    address: Address,
    signature: TransitionItem,
    batch_size: int,
    updates: int,
    importance_exponent: float,
    prefetch: int,
    workers: int = 1,
) -> tf.data.Dataset:
    """Dataset of `SampledBatch` with K = `updates`; it blocks until the replay has enough.

    Importance weights come from the probabilities with which Reverb chose the items, and are
    normalised by the maximum of their batch of B (Ape-X, section 3).
    """
    dataset = reverb.TrajectoryDataset(
        str(address),
        TABLE,
        dtypes=tf.nest.map_structure(lambda spec: spec.dtype, signature),
        shapes=tf.nest.map_structure(lambda spec: spec.shape, signature),
        max_in_flight_samples_per_worker=2 * batch_size * updates,
        num_workers_per_iterator=workers,
    )

    def to_batch(sample):
        info, step = sample.info, sample.data.step[:, 0]
        now_secs = tf.cast(tf.timestamp() % TIME_PERIOD_SECS, tf.float32)
        return SampledBatch(
            experience=to_trajectory(sample.data),
            weights=priorities_ops.importance_weights(
                info.probability, info.table_size[0], importance_exponent
            ),
            keys=info.key,
            version=step[:, VERSION],
            age_secs=_elapsed_secs(step[:, TIME_SECS], now_secs),
        )

    dataset = (
        dataset.batch(batch_size, drop_remainder=True)
        .map(to_batch, num_parallel_calls=1)
        .batch(updates, drop_remainder=True)
        .prefetch(prefetch)
    )
    # Threads of its own: a read that waits for Reverb must not hold one that training needs.
    options = tf.data.Options()
    options.threading.private_threadpool_size = 2
    options.threading.max_intra_op_parallelism = 1
    return dataset.with_options(options)


class Samples:
    """Takes batches from a dataset in a thread, so that no wait for the replay is without limit.

    Iterating over Reverb cannot be interrupted: the thread may hang, its reader never does.

    Args:
      dataset: of `SampledBatch`.
      prefetch: how many to hold ready.
      replay: asked for its state while waiting.
      stop: ends the waiting.
    """

    def __init__(self, dataset, prefetch: int, replay: ReplayInfo, stop: threading.Event):
        self._queue = queue.Queue(maxsize=prefetch)
        self._replay, self._stop = replay, stop
        self._is_time_to_warn = Every(5.0)
        self.waiting = WaitingClock()
        threading.Thread(target=self._read, args=(dataset,), name="samples", daemon=True).start()

    def _read(self, dataset):
        while not self._stop.is_set():
            try:
                for batch in dataset:
                    self._put(batch)
                    if self._stop.is_set():
                        return
            except Exception as error:
                logging.warning("sampling was interrupted, trying again: %s", error)
                self._stop.wait(1.0)

    def _put(self, batch):
        while not self._stop.is_set():
            try:
                return self._queue.put(batch, timeout=0.5)
            except queue.Full:
                continue

    def next(self, timeout_secs: float = 0.5) -> SampledBatch | None:
        """The next batch; None if there was none within the time limit.

        Raises:
          UnavailableError: the replay server did not answer for its time limit.
        """
        try:
            return self._queue.get_nowait()
        except queue.Empty:
            pass
        with self.waiting:
            try:
                batch = self._queue.get(timeout=timeout_secs)
            except queue.Empty:
                if self._is_time_to_warn():
                    logging.warning("the learner waits for samples: %s", self._replay.check())
                return None
        return batch


class ReplayInfo:
    """Asks a replay server how it is, with a time limit.

    Args:
      address: of the replay server.
      timeout_secs: how long it may be unreachable before that is an error.
    """

    def __init__(self, address: Address, timeout_secs: float):
        self._client = reverb.Client(str(address))
        self._address, self._timeout_secs = address, timeout_secs
        self._answered_secs = time.monotonic()

    def wait(self, signature: TransitionItem, role: str, stop: threading.Event):
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
        if TABLE not in info:
            raise ConfigurationError(
                f"the server at {self._address} has no table {TABLE!r}, only {sorted(info)}"
            )
        return info[TABLE]

    def check(self) -> str:
        """A sentence on the table's state. Raises UnavailableError past the time limit."""
        info = self.table()
        if info is None:
            self._give_up_after_limit("the learner")
            return f"the replay server at {self._address} does not answer"
        least = info.rate_limiter_info.min_size_to_sample
        if info.current_size < least:
            return f"the replay holds {info.current_size} items and is sampled from {least} on"
        return (
            f"the replay holds {info.current_size} items, but its rate limiter wants more of the "
            "actors first: are they there, and fast enough?"
        )

    def _give_up_after_limit(self, role: str) -> None:
        silent_secs = time.monotonic() - self._answered_secs
        if silent_secs > self._timeout_secs:
            raise UnavailableError(
                f"{role}: the replay server at {self._address} did not answer for "
                f"{silent_secs:.0f} s"
            )


class PriorityWriter:
    """Writes priorities back in a thread, so that the learner never waits for it.

    If the replay server is away, the oldest updates are dropped: they would be stale.
    """

    def __init__(self, address: Address, max_pending: int = 16):
        self._client = reverb.Client(str(address))
        self._queue = queue.Queue(maxsize=max_pending)
        self.bad = 0
        self.dropped = 0
        threading.Thread(target=self._write, name="priorities", daemon=True).start()

    def update(self, keys: np.ndarray, td_error: np.ndarray) -> None:
        """Sets the priority of each key to |TD error|; keys that are gone are ignored.

        Without TD errors (None) there is nothing to do: the table samples uniformly.
        """
        while td_error is not None:
            try:
                return self._queue.put_nowait((keys, td_error))
            except queue.Full:
                self.dropped += 1
                self._queue.get_nowait()

    def _write(self):
        while True:
            keys, td_error = self._queue.get()
            priority, bad = priorities_ops.sanitise(np.abs(td_error))
            self.bad += bad
            updates = dict(zip(keys.reshape(-1).tolist(), priority.reshape(-1).tolist()))
            try:
                self._client.mutate_priorities(TABLE, updates=updates)
            except Exception as error:
                logging.warning("priorities could not be written: %s", error)
                time.sleep(1.0)


class LearningMetrics:
    """Adds up what a learner's batches show until somebody asks.

    Args:
      replay: asked for the table's size.
      samples, priorities, trainer: whose counters are shown.
    """

    def __init__(self, replay: ReplayInfo, samples: Samples, priorities: PriorityWriter, trainer):
        self._replay, self._samples = replay, samples
        self._priorities, self._trainer = priorities, trainer
        self._last = None

    def add(self, losses: np.ndarray, batch: SampledBatch, step: int) -> None:
        """Remembers the newest batch; the arithmetic waits until `take`."""
        self._last = (losses, batch, step)

    def take(self) -> dict[str, float]:
        """Metrics of the newest batch and the shares of time since the last call."""
        values = {
            "learner/waiting_share": self._samples.waiting.take_share(),
            "learner/bad_steps": self._trainer.bad_steps,
            "learner/bad_priorities": self._priorities.bad,
            "learner/dropped_priority_updates": self._priorities.dropped,
        }
        table = self._replay.table()
        if table is not None:
            values["replay/size"] = table.current_size
        if self._last is not None:
            losses, batch, step = self._last
            values["learner/loss"] = float(losses.mean())
            values["learner/policy_lag"] = float(step - batch.version.numpy().mean())
            values["learner/sample_age_secs"] = float(batch.age_secs.numpy().mean())
        return values


def require_priorities(table_info, td_errors, agent) -> None:
    """Raises ConfigurationError where priorities are wanted that the agent cannot give."""
    if td_errors is None and is_prioritized(table_info):
        raise ConfigurationError(
            f"{type(agent).__name__} gives no td_error for each sample (LossInfo.extra.td_error), "
            "so it cannot train from a prioritised replay; set replay_table.sampler = 'uniform'"
        )
