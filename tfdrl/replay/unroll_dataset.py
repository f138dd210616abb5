"""Unrolls from a replay server: fresh ones from the queue, mixed with replayed ones."""

from __future__ import annotations

import reverb
import tensorflow as tf

from tfdrl.experience.unroll_batches import to_batch
from tfdrl.replay.reading import nothing_ahead, own_threads
from tfdrl.replay.unroll_tables import QUEUE, REPLAY, unrolls_in_flight, with_row
from tfdrl.topology import Address
from tfdrl.types import Unrolls


def unroll_dataset(
    address: Address, signature: Unrolls, batch_size: int, replayed: int = 0
) -> tf.data.Dataset:
    """Dataset of `UnrollBatch`; it blocks until the queue has the fresh part of a batch.

    Nothing is fetched ahead of the batch that is being made, beyond what Reverb has in flight,
    a part of a batch: what waits in the learner's process is policy lag.

    Args:
      address: of the replay server.
      signature: of `unroll_tables.unroll_signature`.
      batch_size: B.
      replayed: of these, so many are drawn from the replay (half of them in section 5.2.2).
    """
    fresh = batch_size - replayed
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
