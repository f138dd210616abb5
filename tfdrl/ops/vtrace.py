"""V-trace: returns and advantages from experience of another policy (Espeholt 2018, section 4)."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf


class VTraceReturns(NamedTuple):
    """What V-trace makes of unrolls; no gradient flows through either.

    vs             <float32>[T, B]  v_s, the target of V(x_s)
    pg_advantages  <float32>[T, B]  min(pg_rho_bar, rho_s) (r_s + gamma_s v_{s+1} - V(x_s)),
                                    the factor of grad log pi(a_s|x_s)
    """

    vs: tf.Tensor
    pg_advantages: tf.Tensor


def vtrace(
    log_rhos: tf.Tensor,
    discounts: tf.Tensor,
    rewards: tf.Tensor,
    values: tf.Tensor,
    next_values: tf.Tensor,
    is_end: tf.Tensor | None = None,
    *,
    rho_bar: float | None = 1.0,
    c_bar: float | None = 1.0,
    pg_rho_bar: float | None = 1.0,
    lambda_: float = 1.0,
) -> VTraceReturns:
    """v_s = V(x_s) + sum_{t>=s} (prod_{s<=i<t} gamma_i c_i) delta_t (Espeholt 2018, section 4.1).

    delta_t = rho_t (r_t + gamma_t V(x_{t+1}) - V(x_t)), rho_t = min(rho_bar, pi/mu) and
    c_t = lambda min(c_bar, pi/mu). rho_bar decides whose value is learnt, c_bar how fast. The
    sums stop at the end of an episode: `discounts` of 0 do not stop them at a truncation, where
    the future has value but was not seen.

    With lambda below 1 the advantages still use v_{s+1}, as SEED RL's do.

    Args:
      log_rhos: <float32>[T, B], log pi(a_t|x_t) - log mu(a_t|x_t); T is static.
      discounts: <float32>[T, B], gamma, 0 where the transition terminated its episode.
      rewards: <float32>[T, B], the reward that followed a_t.
      values: <float32>[T, B], V(x_t).
      next_values: <float32>[T, B], V of the state that a_t led to: V(x_{t+1}) within an episode,
        V of the final observation at a truncation; its last row is the bootstrap.
      is_end: <bool>[T, B], whether the transition ended its episode, by termination or by
        truncation; None where none did by truncation.
      rho_bar: clip of the ratios in delta; None for none.
      c_bar: clip of the ratios that form the trace, at most rho_bar; None for none.
      pg_rho_bar: clip of the ratio in the advantages; None for none.
      lambda_: factor of c, in [0, 1].

    Raises:
      ValueError: not all of one shape [T, B], or T not static.
    """
    _check_shapes(log_rhos, discounts, rewards, values, next_values, is_end)
    is_open = tf.ones_like(values) if is_end is None else 1.0 - tf.cast(is_end, values.dtype)
    rhos = tf.exp(log_rhos)
    deltas = _clip(rhos, rho_bar) * (rewards + discounts * next_values - values)
    traces = discounts * lambda_ * _clip(rhos, c_bar) * is_open
    corrections = _discounted_sums(deltas, traces)  # v_t - V(x_t)
    later = tf.concat([corrections[1:], tf.zeros_like(corrections[:1])], axis=0)
    next_vs = next_values + _passed_on(later, is_open)
    pg_advantages = _clip(rhos, pg_rho_bar) * (rewards + _passed_on(next_vs, discounts) - values)
    return VTraceReturns(tf.stop_gradient(values + corrections), tf.stop_gradient(pg_advantages))


def _check_shapes(log_rhos, discounts, rewards, values, next_values, is_end) -> None:
    # Else a bootstrap of shape [B], or one tensor that is batch-major, would broadcast unseen.
    tensors = {
        "log_rhos": log_rhos,
        "discounts": discounts,
        "rewards": rewards,
        "values": values,
        "next_values": next_values,
    }
    if is_end is not None:
        tensors["is_end"] = is_end
    shape = tf.TensorShape([None, None])
    for name, tensor in tensors.items():
        if not shape.is_compatible_with(tensor.shape):
            raise ValueError(
                f"V-trace wants tensors of one shape [T, B], got {name} of shape {tensor.shape} "
                f"beside {shape}"
            )
        shape = shape.merge_with(tensor.shape)
    if shape[0] is None:
        raise ValueError("V-trace wants a static number of steps T, got tensors [None, B]")


def _clip(rhos: tf.Tensor, maximum: float | None) -> tf.Tensor:
    return rhos if maximum is None else tf.minimum(rhos, maximum)


def _passed_on(later: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """`later * factor`; nothing of what lies behind a factor of 0.

    Ratios that nothing clips may overflow there, and infinity times 0 is no number.
    """
    return tf.math.multiply_no_nan(later, factor)


def _discounted_sums(deltas: tf.Tensor, traces: tf.Tensor) -> tf.Tensor:
    """sum_t = delta_t + trace_t sum_{t+1}, from the last row, which nothing follows, to the first.

    Unrolled, because two small operations a step cost less than an iteration of `tf.scan`.
    """
    total, sums = tf.zeros_like(deltas[0]), []
    for delta, trace in zip(reversed(tf.unstack(deltas)), reversed(tf.unstack(traces))):
        total = delta + _passed_on(total, trace)
        sums.append(total)
    return tf.stack(sums[::-1])
