"""Prioritised replay of whole sequences, as R2D2 trains on them, behind a learner's own queue."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import reverb
import tensorflow as tf

from tfdrl.ops import priorities as priorities_ops
from tfdrl.parts import unroll_samples
from tfdrl.parts.replay_reading import own_threads
from tfdrl.parts.unroll_tables import with_row
from tfdrl.topology import Address
from tfdrl.types import Nest, Unrolls

#: Name of the table that the learner writes and samples.
SEQUENCES = "sequences"


class SequenceBatch(NamedTuple):
    """B sequences by their priorities.

    unrolls  `UnrollBatch`
    weights  <float32>[B], importance weights
    keys     <uint64>[B], of the items in Reverb
    """

    unrolls: unroll_samples.UnrollBatch
    weights: tf.Tensor
    keys: tf.Tensor


def sequence_dataset(
    address: Address, signature: Unrolls, batch_size: int, importance_exponent: float
) -> tf.data.Dataset:
    """Dataset of `SequenceBatch`; it blocks until the replay has enough.

    Args:
      address: of the replay server.
      signature: of `unroll_tables.unroll_signature`.
      batch_size: B.
      importance_exponent: beta of w = (N P)^-beta, divided by the batch's maximum.
    """
    row = with_row(signature)
    dataset = reverb.TrajectoryDataset(
        str(address),
        SEQUENCES,
        dtypes=tf.nest.map_structure(lambda spec: spec.dtype, row),
        shapes=tf.nest.map_structure(lambda spec: spec.shape, row),
        max_in_flight_samples_per_worker=batch_size,
        num_workers_per_iterator=1,
    )

    def to_batch(sample):
        unrolls = tf.nest.map_structure(lambda leaf: leaf[:, 0], sample.data)
        info = sample.info
        return SequenceBatch(
            unroll_samples.to_batch(unrolls),
            priorities_ops.importance_weights(
                info.probability, info.table_size[0], importance_exponent
            ),
            info.key,
        )

    batches = dataset.batch(batch_size, drop_remainder=True).map(to_batch)
    return own_threads(unroll_samples.nothing_ahead(batches))


class InitialPriorities:
    """Priorities of new sequences, from the values that acting saw, and how many were bad."""

    def __init__(self, agent):
        self._compute = tf.function(agent.initial_priorities)
        self.bad = 0

    def of(self, unrolls: Unrolls, next_info: Nest) -> np.ndarray:
        """<float64>[B].

        Args:
          unrolls: B of them, whose info is a `QInfo`.
          next_info: `QInfo` of [B, ...] at their last step.
        """
        max_q = np.concatenate([unrolls.info.max_q, next_info.max_q[:, None]], axis=1)
        experience = unroll_samples.to_batch(unrolls).experience
        found = self._compute(unrolls.info.q_taken, max_q, experience)
        clean, bad = priorities_ops.sanitise(found.numpy())
        self.bad += bad
        return clean


class ReplayRatio:
    """Holds learning and acting to each other: how many sequences a learner step must wait for.

    Args:
      ratio: times that each sequence is trained on, on average.
      batch_size: sequences of a learner step.
      min_size: sequences in the replay before the first learner step.
      size: that it holds already.
    """

    def __init__(self, ratio: float, batch_size: int, min_size: int, size: int):
        self._steps_per_sequence = ratio / batch_size
        self._min_size, self._inserted = min_size, size
        self._credit_steps = 0.0

    @property
    def allows_a_step(self) -> bool:
        """Whether enough came for the next learner step; else more must be inserted first."""
        return self._inserted >= self._min_size and self._credit_steps >= 1.0

    def insert(self, sequences: int) -> None:
        """So many were inserted. Those before the replay has `min_size` give no credit."""
        before, self._inserted = self._inserted, self._inserted + sequences
        counted = self._inserted - max(before, self._min_size)
        self._credit_steps += max(counted, 0) * self._steps_per_sequence

    def step(self) -> None:
        """A learner step was done."""
        self._credit_steps -= 1.0
