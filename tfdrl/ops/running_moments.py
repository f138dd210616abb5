"""Running mean and variance as sums, which add up whoever has counted.

Sums of values and of their squares, in float64: for values of mean m and standard deviation s the
variance is exact to about 1e-16 (m / s)^2, and float32 values themselves resolve no more than
m / s = 1e7.
"""

from __future__ import annotations

import tensorflow as tf

#: An element whose deviation is a smaller part of its mean is constant, as float32 has it.
_RESOLUTION = 1e-7


def sums(values: tf.Tensor, mask: tf.Tensor | None = None) -> tf.Tensor:
    """What N vectors add to the sums.

    Args:
      values: <float>[N, D].
      mask: <bool>[N], of those that count; None: all do.

    Returns:
      <float64>[1 + 2 D]: N, the sum of each element, the sum of its squares; zeros if one of the
      values is not finite.
    """
    values = tf.cast(values, tf.float64)
    weight = tf.ones_like(values[:, :1]) if mask is None else tf.cast(mask, tf.float64)[:, None]
    parts = (weight, weight * values, weight * values * values)
    found = tf.concat([tf.reduce_sum(part, axis=0) for part in parts], axis=0)
    return tf.where(tf.reduce_all(tf.math.is_finite(found)), found, tf.zeros_like(found))


def mean_and_std(sums: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Mean and standard deviation (of the N values, not of N - 1) <float64>[D] of each element.

    Args:
      sums: <float64>[1 + 2 D], added up.

    Before the first value they are 0 and 1; the deviation of an element that is constant is 1.
    """
    count = tf.maximum(sums[0], 1.0)
    total, squares = tf.split(sums[1:], 2)
    mean = total / count
    std = tf.sqrt(tf.maximum(squares / count - mean * mean, 0.0))
    is_constant = std <= _RESOLUTION * tf.abs(mean)
    return mean, tf.where(is_constant, tf.ones_like(std), std)


def discounted_sums(reward: tf.Tensor, is_first: tf.Tensor, gamma: float) -> tf.Tensor:
    """G_t = r_t + gamma G_{t-1}, anew at each episode's first step.

    Args:
      reward: <float32>[T, B], T static.
      is_first: <bool>[T, B].
      gamma: discount factor of one step.

    Returns <float32>[T, B].
    """
    found = [reward[0]]
    for t in range(1, reward.shape[0]):
        found.append(reward[t] + gamma * tf.where(is_first[t], 0.0, found[-1]))
    return tf.stack(found)
