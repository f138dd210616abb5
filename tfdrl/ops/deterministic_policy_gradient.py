"""The gradient of a deterministic policy through a critic (Silver 2014; Lillicrap 2016)."""

from __future__ import annotations

import tensorflow as tf


def policy_loss(action: tf.Tensor, dq_da: tf.Tensor, clip: float | None) -> tf.Tensor:
    """A loss whose gradient with respect to the action is minus dq/da, clipped per element.

    1/2 |a + clip(dq/da) - a|^2 with the first a and the gradient held fixed: going down it moves
    the action up the critic's slope, at most by `clip` in each element (Ape-X, appendix D). Some
    implementations rescale the vector by its L2 norm instead, which keeps its direction.

    Args:
      action: <float>[B, ...], pi(s), with the gradient of the policy's parameters.
      dq_da: <float>[B, ...], of q(s, a) at that action.
      clip: bound of each element; None for none.

    Returns:
      <float>[B].
    """
    if clip is not None:
        dq_da = tf.clip_by_value(dq_da, -clip, clip)
    target = tf.stop_gradient(action + dq_da)
    return 0.5 * tf.reduce_sum(tf.square(target - action), axis=range(1, action.shape.rank))
