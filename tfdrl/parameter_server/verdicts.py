"""What speaks against a push, as operations where the parameters are."""

from __future__ import annotations

import tensorflow as tf

from tfdrl.parameter_server.protocol import (
    ACCEPTED,
    CLOSED,
    DUPLICATE,
    NON_FINITE,
    OLD_EPOCH,
    SHUT,
    STALE,
    VERSION,
    Header,
)


def verdict(
    header: Header,
    gradient: tf.Tensor,
    gate: tf.Tensor,
    epoch: tf.Tensor,
    counts: tf.Tensor,
    contributed: tf.Tensor | None,
    max_age: int | None,
) -> tf.Tensor:
    """The first objection, or ACCEPTED: <int64>[].

    Args:
      header: of the push, each entry <int64>[].
      gradient: <float32>[size].
      gate, epoch: <int64>[], of the shard.
      counts: <int64>[COUNTS], of the shard.
      contributed: <int64>[workers], the version that each worker has last contributed to at the
        barrier; None without one.
      max_age: of a gradient that no other shard has accepted; None: any.
    """
    objections = [
        (CLOSED, tf.equal(gate, SHUT)),
        (OLD_EPOCH, tf.not_equal(header.epoch, epoch)),
        (NON_FINITE, tf.logical_not(tf.reduce_all(tf.math.is_finite(gradient)))),
    ]
    if max_age is not None:
        age = counts[VERSION] - header.version
        objections.append((STALE, tf.equal(header.is_decided, 0) & (age > max_age)))
    if contributed is not None:
        mine = tf.gather(contributed, header.worker)
        objections.append((DUPLICATE, tf.equal(mine, counts[VERSION] + 1)))
    found = tf.constant(ACCEPTED, tf.int64)
    for code, holds in reversed(objections):
        found = tf.where(holds, tf.constant(code, tf.int64), found)
    return found
