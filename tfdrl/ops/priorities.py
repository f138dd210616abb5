"""Prioritised experience replay: weights and priorities (Schaul 2016; Ape-X, section 3)."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

#: Added to every priority: a zero priority could never be sampled (Schaul 2016, section 3.3).
MINIMUM_PRIORITY = 1e-6
MAXIMUM_PRIORITY = 1e6


def importance_weights(probability: tf.Tensor, table_size: tf.Tensor, beta: float) -> tf.Tensor:
    """w_i = (N P(i))^-beta, divided by the batch's maximum (Schaul 2016, section 3.4).

    Args:
      probability: <float>[B], P(i) with which each item was sampled.
      table_size: <int>[B], N, how many items the table held; not its capacity.
      beta: exponent; 0 is no correction, 1 a full one. Ape-X holds it at 0.4.

    Returns:
      <float32>[B] in (0, 1]; the largest belongs to the smallest probability.
    """
    tf.debugging.assert_equal(tf.rank(probability), 1)
    size = tf.cast(table_size, tf.float64)
    log_weight = -beta * (tf.math.log(tf.cast(probability, tf.float64)) + tf.math.log(size))
    return tf.cast(tf.exp(log_weight - tf.reduce_max(log_weight)), tf.float32)


def initial_priorities(
    n_step_return: np.ndarray, discount: np.ndarray, q_t: np.ndarray, max_q_tpn: np.ndarray
) -> np.ndarray:
    """|G_t - Q(s_t, a_t)| from the actor's own Q-values (Ape-X, section 3 and algorithm 1).

    Args:
      n_step_return: <float32>[...].
      discount: <float32>[...], the whole factor gamma^m, 0 after a termination.
      q_t: <float32>[...], Q(s_t, a_t) when acting.
      max_q_tpn: <float32>[...], max_a Q(s_{t+m}, a). With one network, selecting and evaluating
        the action by it is the maximum: double Q-learning's target without a target network.
    """
    return np.abs(n_step_return + discount * max_q_tpn - q_t)


def sanitise(priority: np.ndarray) -> tuple[np.ndarray, int]:
    """Makes priorities that Reverb can bear, and counts those that were bad.

    A negative priority kills the table's worker, an infinite one makes every probability NaN,
    and a zero one is never sampled. NaN and infinite ones become `MINIMUM_PRIORITY`: what they
    belong to is broken, and must not crowd the batches. Negative ones become their absolute value.

    Returns:
      <float64>[...] in [MINIMUM_PRIORITY, MAXIMUM_PRIORITY], and how many were negative or
      not finite.
    """
    priority = np.asarray(priority, np.float64)
    is_bad = ~np.isfinite(priority) | (priority < 0)
    clean = np.abs(np.nan_to_num(priority, nan=0.0, posinf=0.0, neginf=0.0))
    clean = np.clip(clean + MINIMUM_PRIORITY, MINIMUM_PRIORITY, MAXIMUM_PRIORITY)
    return clean, int(np.count_nonzero(is_bad))
