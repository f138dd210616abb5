"""Batches of unrolls for a learner: fresh ones from its queue, mixed with replayed ones."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import reverb
import tensorflow as tf
from tf_agents.trajectories import time_step, trajectory

from tfdrl.parts.metrics import WaitingClock
from tfdrl.parts.replay_reading import nothing_ahead, own_threads
from tfdrl.parts.training import Trainer
from tfdrl.parts.unroll_tables import QUEUE, REPLAY, unrolls_in_flight, with_row
from tfdrl.topology import Address
from tfdrl.types import Unrolls


class UnrollBatch(NamedTuple):
    """B unrolls as an agent takes them; the fresh ones first.

    experience    Trajectory of [B, T+1, ...]; at index T only the observation and the step type
                  mean anything
    policy_state  nest of [B, ...], before index 0
    last_reward   <float32>[B], that led to index 0
    version       <int64>[B], of the parameters that acted
    time_secs     <float64>[B], Unix time when the unroll was complete
    """

    experience: Any
    policy_state: Any
    last_reward: tf.Tensor
    version: tf.Tensor
    time_secs: tf.Tensor


def to_batch(unrolls: Unrolls) -> UnrollBatch:
    """`Unrolls` of tensors -> `UnrollBatch`."""
    steps = unrolls.steps

    def pad(leaf):  # T -> T+1
        return tf.concat([leaf, tf.zeros_like(leaf[:, :1])], axis=1)

    mid = tf.fill([tf.shape(steps.step_type)[0], 1], time_step.StepType.MID)
    experience = trajectory.Trajectory(
        step_type=steps.step_type,
        observation=steps.observation,
        action=tf.nest.map_structure(pad, unrolls.action),
        policy_info=tf.nest.map_structure(pad, unrolls.info),
        next_step_type=tf.concat([steps.step_type[:, 1:], mid], axis=1),
        reward=pad(steps.reward[:, 1:]),
        discount=pad(steps.discount[:, 1:]),
    )
    return UnrollBatch(
        experience,
        unrolls.policy_state,
        steps.reward[:, 0],
        unrolls.version,
        unrolls.time_secs,
    )


def fresh_unrolls(batch_size: int, replay_share: float) -> int:
    """How many unrolls of a batch come from the queue; the rest is replayed."""
    return batch_size - round(batch_size * replay_share)


def unroll_dataset(
    address: Address, signature: Unrolls, batch_size: int, replay_share: float
) -> tf.data.Dataset:
    """Dataset of `UnrollBatch`; it blocks until the queue has the fresh part of a batch.

    Nothing is fetched ahead of the batch that is being made, beyond what Reverb has in flight,
    a part of a batch: what waits in the learner's process is policy lag.

    Args:
      address: of the replay server.
      signature: of `unroll_tables.unroll_signature`.
      batch_size: B.
      replay_share: part of a batch that is drawn from the replay (0.5 in section 5.2.2).
    """
    fresh = fresh_unrolls(batch_size, replay_share)
    dataset = _table_dataset(address, signature, QUEUE, fresh, unrolls_in_flight(fresh))
    if fresh < batch_size:
        rest = batch_size - fresh
        replayed = _table_dataset(address, signature, REPLAY, rest, in_flight=rest)
        dataset = tf.data.Dataset.zip((dataset, replayed)).map(
            lambda *parts: tf.nest.map_structure(lambda *x: tf.concat(x, axis=0), *parts)
        )
    return own_threads(nothing_ahead(dataset.map(to_batch)))


def _table_dataset(address, signature, table, batch_size, in_flight):
    row = with_row(signature)
    dataset = reverb.TrajectoryDataset(
        str(address),
        table,
        dtypes=tf.nest.map_structure(lambda spec: spec.dtype, row),
        shapes=tf.nest.map_structure(lambda spec: spec.shape, row),
        max_in_flight_samples_per_worker=in_flight,
        num_workers_per_iterator=1,  # in the order of the queue
    )
    return dataset.batch(batch_size, drop_remainder=True).map(
        lambda sample: tf.nest.map_structure(lambda leaf: leaf[:, 0], sample.data)
    )


class UnrollMetrics:
    """What a learner's newest batch and step showed, for the progress line and TensorBoard.

    Args:
      queue_size: `queue_size() -> int`, or None while it is not known.
      waiting: the learner's time without a batch.
      trainer: whose counters are shown.
      fresh: how many unrolls of a batch are fresh: lag and age are theirs alone.
    """

    def __init__(
        self,
        queue_size: Callable[[], int | None],
        waiting: WaitingClock,
        trainer: Trainer,
        fresh: int,
    ):
        self._queue_size, self._waiting, self._trainer = queue_size, waiting, trainer
        self._fresh = fresh
        self._last = None

    def add(self, loss: float, info: dict, batch: UnrollBatch, step: int) -> None:
        """Remembers the newest step; the arithmetic waits until `take`."""
        self._last = (loss, info, batch, step)

    def take(self) -> dict[str, float]:
        """Metrics of the newest batch and the shares of time since the last call."""
        values = {
            "learner/waiting_share": self._waiting.take_share(),
            "learner/bad_steps": self._trainer.bad_steps,
        }
        size = self._queue_size()
        if size is not None:
            values["learner/queue"] = size
        if self._last is None:
            return values
        loss, info, batch, step = self._last
        lag = step - 1 - np.asarray(batch.version)  # of the parameters that this step started from
        values["learner/loss"] = loss
        values["learner/policy_lag"] = float(lag[: self._fresh].mean())
        age_secs = time.time() - np.asarray(batch.time_secs)
        values["learner/sample_age_secs"] = float(np.maximum(age_secs[: self._fresh], 0).mean())
        if len(lag) > self._fresh:
            values["learner/replayed_policy_lag"] = float(lag[self._fresh :].mean())
        values.update({f"learner/{name}": float(value) for name, value in info.items()})
        return values


def arguments(agent, batch: UnrollBatch) -> dict[str, Any]:
    """What `agent.train` is given: the state before the unrolls only if it asks for that."""
    takes = inspect.signature(agent._train).parameters
    offered = {"policy_state": batch.policy_state, "last_reward": batch.last_reward}
    return {
        "experience": batch.experience,
        **{name: value for name, value in offered.items() if name in takes},
    }
