"""The weighted sum of an actor-critic's losses that its agent minimises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tf_agents.agents import tf_agent

from tfdrl.agents.entropy_multiplier import EntropyMultiplier
from tfdrl.ops.actor_critic import ActorCriticLosses

_ROUNDING = 1e-4


class VTraceInfo(NamedTuple):
    """What a learner step showed, <float32>[] each; losses as they enter the total.

    `log_rho` is the mean of |log pi/mu|, `clipped_rhos` the share of ratios above rho-bar:
    0 on-policy, both grow with policy lag. `entropy_cost` is the factor of the entropy bonus,
    `multiplier_loss` what trains it if it has a target to hold.
    """

    policy_loss: tf.Tensor
    value_loss: tf.Tensor
    kl_loss: tf.Tensor
    multiplier_loss: tf.Tensor
    entropy: tf.Tensor
    entropy_cost: tf.Tensor
    log_rho: tf.Tensor
    clipped_rhos: tf.Tensor
    gradient_norm: tf.Tensor


class TotalLoss:
    """policy + baseline_cost value - entropy_cost entropy + kl_cost (log mu - log pi).

    Args:
      reduction: "sum" or "mean" over steps.
      baseline_cost, kl_cost: factors.
      entropy_cost: a factor, or the multiplier that holds a target; its own loss is added.
      rho_bar: above which ratios are counted; None for none.
    """

    def __init__(
        self,
        reduction: str,
        baseline_cost: float,
        entropy_cost: float | EntropyMultiplier,
        kl_cost: float,
        rho_bar: float | None,
    ):
        self._reduction, self._kl_cost = reduction, kl_cost
        self._baseline_cost, self._entropy_cost = baseline_cost, entropy_cost
        # On-policy ratios are 1 but for rounding, and 1 is the usual rho_bar.
        self._counted = np.inf if rho_bar is None else np.log(rho_bar) + _ROUNDING

    def __call__(
        self,
        losses: ActorCriticLosses,
        entropy: tf.Tensor,
        log_rho: tf.Tensor,
        mask: tf.Tensor,
        network_losses: Sequence[tf.Tensor] = (),
    ) -> tf_agent.LossInfo:
        """This replica's share, with `VTraceInfo`.

        Args:
          losses: of each step, [T, B].
          entropy: <float32>[T, B], of pi.
          log_rho: <float32>[T, B], log pi(a) - log mu(a); the KL's gradient flows through it.
          mask: <float32>[T, B], the weight of each step.
          network_losses: such as its regularisation.
        """
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        # A mean is over all B x T steps of all replicas, as in SEED RL: masked ones count as 0.
        scale = 1.0 if self._reduction == "sum" else 1.0 / (replicas * tf.size(mask, tf.float32))
        policy_loss = scale * tf.reduce_sum(losses.policy * mask)
        value_loss = scale * self._baseline_cost * tf.reduce_sum(losses.value * mask)
        kl_loss = tf.zeros([])
        if self._kl_cost:
            kl_loss = -scale * self._kl_cost * tf.reduce_sum(log_rho * mask)
        steps = tf.maximum(tf.reduce_sum(mask), 1.0)
        mean_entropy = tf.reduce_sum(entropy * mask) / steps
        if isinstance(self._entropy_cost, EntropyMultiplier):
            cost = tf.stop_gradient(self._entropy_cost.cost())
            multiplier_loss = self._entropy_cost.loss(mean_entropy) / replicas
        else:
            cost, multiplier_loss = tf.constant(self._entropy_cost, tf.float32), tf.zeros([])
        bonus = scale * cost * tf.reduce_sum(entropy * mask)
        loss = policy_loss + value_loss - bonus + kl_loss + multiplier_loss
        if network_losses:
            loss += tf.add_n(network_losses) / replicas
        log_rho = tf.stop_gradient(log_rho)
        info = VTraceInfo(
            policy_loss=policy_loss,
            value_loss=value_loss,
            kl_loss=kl_loss,
            multiplier_loss=multiplier_loss,
            entropy=mean_entropy,
            entropy_cost=cost,
            log_rho=tf.reduce_sum(tf.abs(log_rho) * mask) / steps,
            clipped_rhos=tf.reduce_sum(tf.cast(log_rho > self._counted, tf.float32) * mask) / steps,
            gradient_norm=tf.zeros([]),
        )
        return tf_agent.LossInfo(loss, info)
