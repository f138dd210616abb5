"""The invertible rescaling of values of R2D2 (Kapturowski 2019, section 2.3; Pohlen 2018)."""

from __future__ import annotations

import tensorflow as tf

#: epsilon of both papers.
EPSILON = 1e-3


def rescale(x: tf.Tensor, epsilon: float = EPSILON) -> tf.Tensor:
    """h(x) = sign(x) (sqrt(|x| + 1) - 1) + epsilon x. <float>[...] -> <float>[...]."""
    # sqrt(|x| + 1) - 1 = |x| / (sqrt(|x| + 1) + 1), which float32 computes exactly near 0.
    return x / (tf.sqrt(tf.abs(x) + 1.0) + 1.0) + epsilon * x


def inverse(x: tf.Tensor, epsilon: float = EPSILON) -> tf.Tensor:
    """h^-1(x) = sign(x) (((sqrt(1 + 4 epsilon (|x| + 1 + epsilon)) - 1) / (2 epsilon))^2 - 1).

    Written so that float32 keeps its digits near 0: with u = 4 epsilon (|x| + 1 + epsilon),
    sqrt(1 + u) - 1 = u / (sqrt(1 + u) + 1), in which nothing is subtracted. So the fraction is
    y = 2 (|x| + 1 + epsilon) / (sqrt(1 + u) + 1), and y^2 - 1 is (y - 1) (y + 1).

    Args:
      x: <float>[...].
      epsilon: that of `rescale`; positive.
    """
    magnitude = tf.abs(x)
    root = tf.sqrt(1.0 + 4.0 * epsilon * (magnitude + 1.0 + epsilon))
    # y - 1 = (2 |x| + 2 + 2 epsilon - root - 1) / (root + 1), where root = 1 + 2 epsilon at x = 0:
    # root - (1 + 2 epsilon) = 4 epsilon |x| / (root + 1 + 2 epsilon).
    excess = 4.0 * epsilon * magnitude / (root + 1.0 + 2.0 * epsilon)
    below = (2.0 * magnitude - excess) / (root + 1.0)
    return tf.sign(x) * below * (below + 2.0)
