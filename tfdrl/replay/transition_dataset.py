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

from tfdrl.errors import ConfigurationError
from tfdrl.experience.frame_stacks import FramePairs
from tfdrl.experience.transitions import (
    DEPTHS,
    DISCOUNT,
    LENGTH_STEPS,
    N_STEP_RETURN,
    STEP_COLUMNS,
    TIME_SECS,
    VERSION,
    TransitionItem,
)
from tfdrl.ops import priorities as priorities_ops
from tfdrl.replay.client import connect
from tfdrl.replay.reading import in_flight_samples, one_ahead, own_threads
from tfdrl.replay.transition_table import TABLE, is_prioritized
from tfdrl.topology import Address


class SampledBatch(NamedTuple):
    """K batches of B transitions, as the learner takes them.

    experience  Trajectory of [K, B, 2, ...]: s_t and s_{t+m}, n-step return and discount at 0
    weights     <float32>[K, B], importance weights
    keys        <uint64>[K, B], of the items in Reverb
    version     <float32>[K, B], of the parameters that acted
    time_secs   <float32>[K, B], when the actor wrote the item: see `transitions.age_secs`
    """

    experience: Any
    weights: tf.Tensor
    keys: tf.Tensor
    version: tf.Tensor
    time_secs: tf.Tensor


def to_trajectory(item: TransitionItem) -> trajectory.Trajectory:
    """TransitionItem of [B, ...] -> Trajectory of [B, 2, ...] (see `NStepDqnAgent`).

    Stacks of frames remain to be made: `FramePairs`.
    """
    batch = tf.shape(item.step)[0]
    twice = lambda leaf: tf.repeat(leaf, 2, axis=1)  # noqa: E731
    columns = twice(item.step)
    mid = tf.fill([batch, 2], time_step.StepType.MID)
    observation = item.observation
    if item.step.shape[-1] > STEP_COLUMNS:
        length_steps = tf.cast(item.step[:, 0, LENGTH_STEPS], tf.int32)
        depth = tf.cast(item.step[:, 0, DEPTHS:], tf.uint8)
        observation = FramePairs(observation, depth, length_steps)
    return trajectory.Trajectory(
        step_type=mid,
        observation=observation,
        action=tf.nest.map_structure(twice, item.action),
        policy_info=(),
        next_step_type=mid,
        reward=columns[..., N_STEP_RETURN],
        discount=columns[..., DISCOUNT],
    )


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

    Of the `prefetch` elements that may be sampled ahead, one is on its way, one is made, and the
    others are to be read: `Samples` with `ready_of(prefetch)`.

    Importance weights come from the probabilities with which Reverb chose the items, and are
    normalised by the maximum of their batch of B (Ape-X, section 3).
    """
    dataset = reverb.TrajectoryDataset(
        str(address),
        TABLE,
        dtypes=tf.nest.map_structure(lambda spec: spec.dtype, signature),
        shapes=tf.nest.map_structure(lambda spec: spec.shape, signature),
        max_in_flight_samples_per_worker=in_flight_samples(batch_size * updates, workers),
        num_workers_per_iterator=workers,
    )

    def to_batch(sample):
        info, step = sample.info, sample.data.step[:, 0]
        return SampledBatch(
            experience=to_trajectory(sample.data),
            weights=priorities_ops.importance_weights(
                info.probability, info.table_size[0], importance_exponent
            ),
            keys=info.key,
            version=step[:, VERSION],
            time_secs=step[:, TIME_SECS],
        )

    dataset = (
        dataset.batch(batch_size, drop_remainder=True)
        .map(to_batch)
        .batch(updates, drop_remainder=True)
    )
    return own_threads(one_ahead(dataset, prefetch))


def first(part):
    """The first of K batches: [K, B, ...] -> [B, ...]."""
    return tf.nest.map_structure(lambda leaf: leaf[0], part)


def priority_updates(keys: np.ndarray, priorities: np.ndarray) -> tuple[dict[int, float], int]:
    """What Reverb is told, and how many were not finite; arguments as of `PriorityWriter`."""
    priority, bad = priorities_ops.sanitise(np.abs(priorities))
    return dict(zip(keys.reshape(-1).tolist(), priority.reshape(-1).tolist())), bad


class PriorityWriter:
    """Writes priorities back in a thread, so that the learner never waits for it.

    If the replay server is away, the oldest updates are dropped: they would be stale.
    """

    def __init__(self, address: Address, max_pending: int = 16, table: str = TABLE):
        self._table = table
        self._client = connect(address)
        self._queue = queue.Queue(maxsize=max_pending)
        self.bad = 0
        self.dropped = 0
        threading.Thread(target=self._write, name="priorities", daemon=True).start()

    def update(self, keys: np.ndarray, priorities: np.ndarray | None) -> None:
        """Sets the priority of each key, to |TD error| where that is given; keys may be gone.

        Args:
          keys: <uint64>[...].
          priorities: <float32> of the same shape, priorities or TD errors; None, of a loss without
            any: nothing is done, the table samples uniformly.
        """
        while priorities is not None:
            try:
                return self._queue.put_nowait((keys, priorities))
            except queue.Full:
                self.dropped += 1
                self._queue.get_nowait()

    def _write(self):
        while True:
            updates, bad = priority_updates(*self._queue.get())
            self.bad += bad
            try:
                self._client.mutate_priorities(self._table, updates=updates)
            except Exception as error:
                logging.warning("priorities could not be written: %s", error)
                time.sleep(1.0)


def require_priorities(table_info, trainer, batch, agent) -> None:
    """Raises ConfigurationError where priorities are wanted that the agent cannot give.

    Args:
      table_info: of the replay; None if nobody knows it.
      trainer: of the agent.
      batch: specs of a `SampledBatch`.
      agent: is named.
    """
    if table_info is None or not is_prioritized(table_info):
        return
    if not trainer.gives_td_error(batch.experience, batch.weights):
        raise ConfigurationError(
            f"{type(agent).__name__} gives no td_error for each sample (LossInfo.extra.td_error), "
            "so it cannot train from a prioritised replay; set replay_table.sampler = 'uniform'"
        )
