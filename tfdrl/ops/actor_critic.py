"""Actor-critic losses under policy lag: the four off-policy corrections of IMPALA's table 2."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from tfdrl.ops.vtrace import VTraceReturns, vtrace

#: From trusting stale experience as if it were fresh, to correcting both losses for it.
CORRECTIONS = ("none", "epsilon", "one_step_is", "vtrace")


class ActorCriticLosses(NamedTuple):
    """Losses of each step, neither weighted nor reduced.

    policy   <float32>[T, B]  -log pi(a_t|x_t) advantage_t
    value    <float32>[T, B]  1/2 (v_t - V(x_t))^2
    returns  the targets v_t, and the advantages with their importance weight
    """

    policy: tf.Tensor
    value: tf.Tensor
    returns: VTraceReturns


def actor_critic_losses(
    log_prob: tf.Tensor,
    behaviour_log_prob: tf.Tensor,
    discounts: tf.Tensor,
    rewards: tf.Tensor,
    values: tf.Tensor,
    next_values: tf.Tensor,
    is_end: tf.Tensor | None,
    *,
    correction: str = "vtrace",
    rho_bar: float | None = 1.0,
    c_bar: float | None = 1.0,
    pg_rho_bar: float | None = 1.0,
    lambda_: float = 1.0,
    epsilon: float = 1e-6,
) -> ActorCriticLosses:
    """Policy and value losses of unrolls that a policy mu generated (Espeholt 2018, section 5.2.2).

    | correction  | target of V    | factor of the advantage | log-probability    |
    |-------------|----------------|-------------------------|--------------------|
    | none        | n-step return  | 1                       | log pi(a)          |
    | epsilon     | n-step return  | 1                       | log(pi(a) + 1e-6)  |
    | one_step_is | n-step return  | min(pg_rho_bar, pi/mu)  | log pi(a)          |
    | vtrace      | V-trace        | min(pg_rho_bar, pi/mu)  | log pi(a)          |

    The paper does not say what target the first three have; here it is V-trace's with rho = 1 and
    c = lambda, which is the n-step return for lambda = 1.

    The gradient of the policy's loss flows through `log_prob`, that of the value's through
    `values`, and none through anything else. Steps that are no transitions of the task get
    losses too: mask them.

    Args:
      log_prob: <float32>[T, B], log pi(a_t|x_t) of the policy that learns.
      behaviour_log_prob: <float32>[T, B], log mu(a_t|x_t) of the policy that acted.
      discounts, rewards, values, next_values, is_end: see `vtrace`.
      correction: one of CORRECTIONS.
      rho_bar, c_bar: V-trace's clips; the other corrections do not use them.
      pg_rho_bar: clip of the ratio in the policy gradient; None for none.
      lambda_: factor of c.
      epsilon: what the epsilon-correction adds to pi(a).

    Raises:
      ValueError: an unknown correction, or not all tensors of one shape [T, B].
    """
    if correction not in CORRECTIONS:
        raise ValueError(f"unknown correction {correction!r}; use one of {', '.join(CORRECTIONS)}")
    _check_log_probs(log_prob, behaviour_log_prob)
    log_rhos = tf.stop_gradient(log_prob - behaviour_log_prob)
    steps = (discounts, rewards, values, next_values, is_end)
    if correction == "vtrace":
        clips = {"rho_bar": rho_bar, "c_bar": c_bar, "pg_rho_bar": pg_rho_bar}
        returns = vtrace(log_rhos, *steps, **clips, lambda_=lambda_)
    else:
        clips = {"rho_bar": None, "c_bar": None, "pg_rho_bar": None}
        returns = vtrace(tf.zeros_like(log_rhos), *steps, **clips, lambda_=lambda_)
    if correction == "one_step_is":
        rhos = tf.exp(log_rhos)
        rhos = rhos if pg_rho_bar is None else tf.minimum(rhos, pg_rho_bar)
        returns = returns._replace(pg_advantages=rhos * returns.pg_advantages)
    if correction == "epsilon":
        log_prob = tf.math.log(tf.exp(log_prob) + epsilon)
    return ActorCriticLosses(
        policy=-log_prob * returns.pg_advantages,
        value=0.5 * tf.square(returns.vs - values),
        returns=returns,
    )


def _check_log_probs(log_prob: tf.Tensor, behaviour_log_prob: tf.Tensor) -> None:
    # A distribution whose event is not the whole action has log-probabilities [T, B, d].
    for name, tensor in (("log_prob", log_prob), ("behaviour_log_prob", behaviour_log_prob)):
        is_fitting = tensor.shape.rank == 2 and tensor.shape.is_compatible_with(log_prob.shape)
        if not is_fitting:
            raise ValueError(
                f"log-probabilities want one shape [T, B], got {name} of shape {tensor.shape}"
                f" and log_prob of shape {log_prob.shape}"
            )
