"""Prioritised replay of whole sequences, as R2D2 trains on them, behind a learner's own queue."""

from __future__ import annotations

import functools
import threading
from typing import NamedTuple

import numpy as np
import reverb
import tensorflow as tf

from tfdrl.experience import frame_stacks, unroll_batches
from tfdrl.ops import priorities as priorities_ops
from tfdrl.replay.client import ReplayInfo
from tfdrl.replay.identity import require_other_process
from tfdrl.replay.reading import Samples, in_flight_samples, one_ahead, own_threads, ready_of
from tfdrl.replay.sequence_writer import SEQUENCES, SequenceWriter
from tfdrl.replay.transition_dataset import PriorityWriter
from tfdrl.replay.unroll_tables import with_row
from tfdrl.topology import Address
from tfdrl.types import Nest, Unrolls

#: Batches of sequences that are sampled ahead of training: one in Reverb's stream, one made.
PREFETCH_BATCHES = 2


class SequenceBatch(NamedTuple):
    """B sequences by their priorities.

    unrolls  `UnrollBatch`
    weights  <float32>[B], importance weights
    keys     <uint64>[B], of the items in Reverb
    """

    unrolls: unroll_batches.UnrollBatch
    weights: tf.Tensor
    keys: tf.Tensor


def sequence_dataset(
    address: Address,
    signature: Unrolls,
    batch_size: int,
    importance_exponent: float,
    prefetch: int,
) -> tf.data.Dataset:
    """Dataset of `SequenceBatch`; it blocks until the replay has enough.

    Args:
      address: of the replay server.
      signature: of `unroll_tables.unroll_signature`, thinned for stacks of frames.
      batch_size: B.
      importance_exponent: beta of w = (N P)^-beta, divided by the batch's maximum.
      prefetch: batches that may be sampled ahead, as `transition_dataset.sample_dataset` has it.
    """
    row = with_row(signature)
    dataset = reverb.TrajectoryDataset(
        str(address),
        SEQUENCES,
        dtypes=tf.nest.map_structure(lambda spec: spec.dtype, row),
        shapes=tf.nest.map_structure(lambda spec: spec.shape, row),
        max_in_flight_samples_per_worker=in_flight_samples(batch_size, workers=1),
        num_workers_per_iterator=1,
    )

    def to_batch(sample):
        unrolls = tf.nest.map_structure(lambda leaf: leaf[:, 0], sample.data)
        info = sample.info
        return SequenceBatch(
            unroll_batches.to_batch(unrolls),
            priorities_ops.importance_weights(
                info.probability, info.table_size[0], importance_exponent
            ),
            info.key,
        )

    batches = dataset.batch(batch_size, drop_remainder=True).map(to_batch)
    return own_threads(one_ahead(batches, prefetch))


class StepCredit:
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


class SequenceSamples:
    """The learner's batches of sequences, and their new priorities.

    Args:
      address: of the replay server.
      signature: of `unroll_tables.unroll_signature`.
      frame_stack: k frames in an observation, of which one is stored; else 1.
      stop: ends every wait.
      batch_size, importance_exponent: as of `sequence_dataset`.
      timeout_secs: how long the server may be away.
      prefetch_batches: that are sampled ahead of training, Reverb's stream included.

    Attributes:
      waiting: the clock of the learner's waits.
    """

    def __init__(
        self,
        address: Address,
        signature: Unrolls,
        frame_stack: int,
        stop: threading.Event,
        *,
        batch_size: int,
        importance_exponent: float,
        timeout_secs: float,
        prefetch_batches: int = PREFETCH_BATCHES,
    ):
        self._address, self._prefetch = address, prefetch_batches
        self._batch_size, self._importance_exponent = batch_size, importance_exponent
        self._signature = frame_stacks.thin_signature(signature, frame_stack)
        self._server, self._stop = ReplayInfo(address, timeout_secs, SEQUENCES), stop
        self._samples = self._priorities = None

    def wait(self):
        """Waits for the server; its table's info, or None if `stop` was set.

        Raises:
          UnavailableError: it did not come in time.
          ConfigurationError: it holds other sequences.
        """
        table = self._server.wait(with_row(self._signature), "the learner", self._stop)
        if table is not None:
            require_other_process(self._address, SEQUENCES)
            dataset = sequence_dataset(
                self._address,
                self._signature,
                self._batch_size,
                self._importance_exponent,
                self._prefetch,
            )
            self._samples = Samples(dataset, ready_of(self._prefetch), self._server, self._stop)
            self.waiting = self._samples.waiting
            self._priorities = PriorityWriter(self._address, table=SEQUENCES)
        return table

    def next(self) -> SequenceBatch | None:
        """The next batch; None if there is none yet, or `stop` is set. Raises UnavailableError."""
        return self._samples.next()

    def update(self, batch: SequenceBatch, priorities: np.ndarray) -> None:
        """After a learner step: <float32>[B] new priorities of the batch."""
        self._priorities.update(batch.keys.numpy(), priorities)

    def size(self) -> int:
        """How many sequences the replay holds."""
        return self._server.size() or 0

    def metrics(self) -> dict[str, float]:
        """Of the replay."""
        values = {"replay/size": self.size(), "learner/bad_priorities": self._priorities.bad}
        if self._server.min_size is not None:
            values["replay/min_size"] = self._server.min_size
        return values


class SequenceReplay:
    """SEED's hand on the replay: new sequences in, batches out, in the ratio that is set.

    Args:
      address: of the replay server.
      signature: of `unroll_tables.unroll_signature`.
      agent: computes initial priorities.
      frame_stack: k frames in an observation, of which one is stored; else 1.
      stop: ends every wait.
      ratio: times that each sequence is trained on, on average.
      batch_size, importance_exponent, timeout_secs: as of `SequenceSamples`.
    """

    def __init__(
        self,
        address: Address,
        signature: Unrolls,
        agent,
        frame_stack: int,
        stop: threading.Event,
        *,
        ratio: float,
        batch_size: int,
        importance_exponent: float,
        timeout_secs: float,
    ):
        self._samples = SequenceSamples(
            address,
            signature,
            frame_stack,
            stop,
            batch_size=batch_size,
            importance_exponent=importance_exponent,
            timeout_secs=timeout_secs,
        )
        self._make_writer = functools.partial(
            SequenceWriter, address, agent, frame_stack, timeout_secs, stop
        )
        self._make_credit = functools.partial(StepCredit, ratio, batch_size)
        self._credit = self._writer = None

    def wait(self) -> bool:
        """Waits for the server; whether it is there, or `stop` was set.

        Raises:
          UnavailableError, ConfigurationError: as `SequenceSamples.wait`.
        """
        table = self._samples.wait()
        if table is None:
            return False
        min_size = table.rate_limiter_info.min_size_to_sample
        self._credit = self._make_credit(min_size, table.current_size)
        self._writer = self._make_writer()
        return True

    @property
    def waiting(self):
        """The clock of the learner's waits."""
        return self._samples.waiting

    @property
    def allow_a_step(self) -> bool:
        """Whether there are enough new sequences for another learner step."""
        return self._credit.allows_a_step

    def put(self, unrolls: Unrolls, next_info: Nest) -> None:
        """Inserts sequences, as `SequenceWriter.write`. Raises UnavailableError."""
        self._writer.write(unrolls, next_info)
        self._credit.insert(len(unrolls.version))

    def sample(self) -> SequenceBatch | None:
        """The next batch; None if there is none yet, or `stop` is set. Raises UnavailableError."""
        return self._samples.next()

    def update(self, batch: SequenceBatch, priorities: np.ndarray) -> None:
        """After a learner step: <float32>[B] new priorities of the batch."""
        self._samples.update(batch, priorities)
        self._credit.step()

    def metrics(self) -> dict[str, float]:
        """Of the replay."""
        values = self._samples.metrics()
        values["learner/bad_priorities"] += self._writer.bad_priorities
        return values

    def close(self) -> None:
        """Gives up what the server has not taken."""
        self._writer.close()
