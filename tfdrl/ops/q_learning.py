"""Q-learning targets and errors, and the dueling aggregation."""

from __future__ import annotations

import tensorflow as tf


def dueling(value: tf.Tensor, advantage: tf.Tensor) -> tf.Tensor:
    """q = v + (adv - mean_a adv) (Wang 2016, equation 9).

    Args:
      value: <float>[B, 1].
      advantage: <float>[B, A].

    Returns:
      <float>[B, A].
    """
    tf.debugging.assert_rank(value, 2)
    tf.debugging.assert_rank(advantage, 2)
    return value + advantage - tf.reduce_mean(advantage, axis=-1, keepdims=True)


def td_errors(
    q_tm1: tf.Tensor,
    a_tm1: tf.Tensor,
    n_step_return: tf.Tensor,
    discount: tf.Tensor,
    q_t_target: tf.Tensor,
    q_t_selector: tf.Tensor,
) -> tf.Tensor:
    """delta = R + discount Q(s', argmax_a selector(s', a); target) - Q(s, a).

    With the online network's values as `q_t_selector` this is double Q-learning (van Hasselt
    2016, equation 4); with the target network's own it is DQN (Mnih 2015). No gradient flows
    through the target.

    Args:
      q_tm1: <float>[B, A], Q(s, .) of the online network.
      a_tm1: <int>[B].
      n_step_return: <float>[B].
      discount: <float>[B], gamma^m for a window of m steps, 0 after a termination.
      q_t_target: <float>[B, A], Q(s', .) of the target network.
      q_t_selector: <float>[B, A], the values by which the action is chosen.

    Returns:
      <float>[B], target minus estimate.
    """
    for tensor, rank in ((q_tm1, 2), (a_tm1, 1), (n_step_return, 1), (discount, 1)):
        tf.debugging.assert_rank(tensor, rank)
    a_t = tf.argmax(q_t_selector, axis=-1, output_type=tf.int32)
    bootstrap = tf.gather(q_t_target, a_t, batch_dims=1)
    target = tf.stop_gradient(n_step_return + discount * bootstrap)
    return target - tf.gather(q_tm1, tf.cast(a_tm1, tf.int32), batch_dims=1)


def half_squared(td_error: tf.Tensor) -> tf.Tensor:
    """1/2 delta^2 (Ape-X, section 3). <float>[B] -> <float>[B]."""
    return 0.5 * tf.square(td_error)


def huber(td_error: tf.Tensor) -> tf.Tensor:
    """Huber loss with delta 1: its gradient is the TD error clipped to [-1, 1] (Mnih 2015)."""
    magnitude = tf.abs(td_error)
    return tf.where(magnitude <= 1.0, 0.5 * tf.square(td_error), magnitude - 0.5)
