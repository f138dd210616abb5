"""How old gradients are, as a histogram with buckets 0, 1, 2-3, 4-7, ..."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfdrl.parameter_server.protocol import AGE_BUCKETS


def one_more(age: tf.Tensor) -> tf.Tensor:
    """<int64>[AGE_BUCKETS] with a 1 for a gradient of this age, <int64>[]; the last is open."""
    power = tf.floor(tf.math.log(tf.cast(age, tf.float64) + 0.5) / np.log(2.0))
    bucket = tf.where(tf.equal(age, 0), tf.constant(0, tf.int64), 1 + tf.cast(power, tf.int64))
    return tf.one_hot(tf.minimum(bucket, AGE_BUCKETS - 1), AGE_BUCKETS, dtype=tf.int64)


def mean_age(ages: Sequence[int]) -> float | None:
    """The mean, each bucket taken at its middle; None of an empty histogram."""
    total = sum(ages)
    if not total:
        return None
    middles = [0.0] + [1.5 * 2**i - 0.5 for i in range(len(ages) - 1)]
    return sum(count * middle for count, middle in zip(ages, middles)) / total
