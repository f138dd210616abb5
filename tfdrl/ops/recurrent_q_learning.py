"""n-step double Q-learning over sequences, and the priorities of sequences: R2D2's equations."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfdrl.ops import value_rescaling


def n_step_returns(
    reward: tf.Tensor,
    discount: tf.Tensor,
    bootstrap: tf.Tensor,
    n: int,
    is_end: tf.Tensor | None = None,
    lambda_: float = 1.0,
) -> tf.Tensor:
    """R_t = r_t + g_t r_{t+1} + ... + (g_t ... g_{t+m-1}) v_{t+m-1}, m = min(n, T - t).

    The last n-1 windows are shorter and bootstrap from the last value there is, as does a window
    that an episode's end cuts: nothing flows across it.

    Args:
      reward: <float>[T, ...], that followed step t.
      discount: <float>[T, ...], gamma, or 0 if the step that followed was terminal.
      bootstrap: <float>[T, ...], value of the step that followed t.
      n: length of a full window, in steps.
      is_end: <bool>[T, ...], whether the step that followed t is the last of its episode, by
        termination or truncation; None if only terminations, whose discount is 0, end it.
      lambda_: weight of what follows against the value at each step of a window.

    Returns:
      <float>[T, ...].

    Raises:
      ValueError: n is below 1.
    """
    if n < 1:
        raise ValueError(f"n = {n}: a window has at least one step")
    length = reward.shape[0]
    cut = tf.zeros_like(reward, tf.bool) if is_end is None else is_end
    # Of windows of one step, then of two, and so on: R^(k)_t = r_t + g_t R^(k-1)_{t+1}, unless
    # the window ends at t.
    one_step = returns = reward + discount * bootstrap
    for _ in range(min(n, length) - 1):
        later = (1.0 - lambda_) * bootstrap[:-1] + lambda_ * returns[1:]
        longer = reward[:-1] + discount[:-1] * later
        longer = tf.where(cut[:-1], one_step[:-1], longer)
        returns = tf.concat([longer, one_step[-1:]], axis=0)
    return returns


def td_errors(
    q: tf.Tensor,
    action: tf.Tensor,
    reward: tf.Tensor,
    discount: tf.Tensor,
    q_target: tf.Tensor,
    q_selector: tf.Tensor,
    n: int,
    is_end: tf.Tensor | None = None,
    rescaling_epsilon: float | None = value_rescaling.EPSILON,
) -> tf.Tensor:
    """delta_t = h(R_t of h^-1(Q(s, argmax_a Q(s, a); target))) - Q(s_t, a_t) (section 2.3).

    Args:
      q: <float>[T, B, A], of the online network for steps 0 to T-1.
      action: <int>[T, B], that answered them.
      reward, discount, is_end: [T, B], of what followed, as `n_step_returns` takes them.
      q_target: <float>[T, B, A], of the target network for steps 1 to T.
      q_selector: <float>[T, B, A], of the online network for them: double Q-learning.
      n: steps of a window.
      rescaling_epsilon: of h; None for no rescaling.

    Returns:
      <float>[T, B]; gradient flows through `q` alone.
    """
    best = tf.argmax(q_selector, axis=-1, output_type=tf.int32)
    bootstrap = tf.gather(q_target, best, batch_dims=2)
    chosen = tf.gather(q, tf.cast(action, tf.int32), batch_dims=2)
    return td_errors_of_values(chosen, reward, discount, bootstrap, n, is_end, rescaling_epsilon)


def td_errors_of_values(
    chosen: tf.Tensor,
    reward: tf.Tensor,
    discount: tf.Tensor,
    bootstrap: tf.Tensor,
    n: int,
    is_end: tf.Tensor | None = None,
    rescaling_epsilon: float | None = value_rescaling.EPSILON,
) -> tf.Tensor:
    """As `td_errors`, of the values Q(s_t, a_t) and those to bootstrap from, <float>[T, B]."""
    if rescaling_epsilon is not None:
        bootstrap = value_rescaling.inverse(bootstrap, rescaling_epsilon)
    target = n_step_returns(reward, discount, bootstrap, n, is_end)
    if rescaling_epsilon is not None:
        target = value_rescaling.rescale(target, rescaling_epsilon)
    return tf.stop_gradient(target) - chosen


class SequenceLoss(NamedTuple):
    """Of B sequences: loss <float>[B], 1/2 sum_t delta_t^2, and priority <float>[B]."""

    loss: tf.Tensor
    priority: tf.Tensor


def sequence_loss(td_error: tf.Tensor, mask: tf.Tensor, eta: float) -> SequenceLoss:
    """Loss and priority p = eta max_t |delta_t| + (1 - eta) mean_t |delta_t| (section 2.3).

    Args:
      td_error: <float>[T, B].
      mask: <float>[T, B], 0 where the step is no transition of the task.
      eta: 0.9 in the paper.
    """
    masked = td_error * mask
    magnitude = tf.stop_gradient(tf.abs(masked))
    steps = tf.maximum(tf.reduce_sum(mask, axis=0), 1.0)
    mean = tf.reduce_sum(magnitude, axis=0) / steps
    priority = eta * tf.reduce_max(magnitude, axis=0) + (1.0 - eta) * mean
    return SequenceLoss(0.5 * tf.reduce_sum(tf.square(masked), axis=0), priority)
