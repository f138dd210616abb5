"""Values and random numbers of actions of which a mask allows some.

A mask is <any>[..., A]: not 0 (or True) where the action is allowed. A row that allows nothing
counts as one that allows all, so that no step makes what it is part of infinite or NaN: the last
observation of a finished game, or the zeros with which sequences are filled up.
"""

from __future__ import annotations

import tensorflow as tf


def allowed(mask: tf.Tensor) -> tf.Tensor:
    """<bool>[..., A], at least one of which is true in each row."""
    mask = tf.cast(mask, tf.bool)
    return mask | ~tf.reduce_any(mask, axis=-1, keepdims=True)


def mask_values(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """The values of allowed actions, and the lowest number of their type for all others.

    Of Q-values no argmax and no maximum is then of a forbidden action; of logits the probability
    of one is exactly 0, and entropy, KL divergence and log-probabilities of allowed actions are
    those of the distribution over what is allowed (Huang & Ontañón 2022, section 3). No gradient
    flows through what is replaced.

    Args:
      values: <float>[..., A].
      mask: <any>[..., A].
    """
    return tf.where(allowed(mask), values, values.dtype.min)


def best_action(values: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """argmax_a over allowed actions, <int32>[...]; an allowed one even if all values are NaN.

    Of independent uniform numbers it is an allowed action uniformly at random.
    """
    # NaN and minus infinity too; tf.argmax begins with the lowest number, at index 0.
    low = values.dtype.min / 2
    values = tf.where(values > low, values, low)
    values = tf.where(allowed(mask), values, -float("inf"))
    return tf.argmax(values, axis=-1, output_type=tf.int32)
