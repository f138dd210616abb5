"""The entropy's cost as a Lagrange multiplier, which holds the policy's entropy at a target."""

from __future__ import annotations

import math

import tensorflow as tf

from tfdrl.errors import ConfigurationError

#: Bound of |log c|: beyond it a step of the parameter would be lost in float32's rounding.
MAX_LOG_COST = 20.0


class EntropyMultiplier(tf.Module):
    """c = exp(speed w) with a trained w: it grows while the entropy is below its target.

    Its loss is c sg(H - target); c stays within exp(-20) and exp(20). As in SEED RL's release
    (its flags target_entropy and entropy_cost_adjustment_speed).

    Args:
      initial_cost: c before training.
      target: of the policy's mean entropy, in nats; of continuous actions it may be negative.
      speed: relative change of c for a change of w by 1.

    Raises:
      ConfigurationError: values with which c could not be trained.
    """

    def __init__(self, initial_cost: float, target: float, speed: float):
        super().__init__(name="EntropyMultiplier")
        if not (initial_cost > 0 and abs(math.log(initial_cost)) <= MAX_LOG_COST):
            raise ConfigurationError(
                f"VTraceAgent.entropy_cost = {initial_cost} is what target_entropy = {target} "
                f"starts from: it must be between exp(-{MAX_LOG_COST:g}) and exp({MAX_LOG_COST:g})"
            )
        if not math.isfinite(target) or not 0 < speed < math.inf:
            raise ConfigurationError(
                f"VTraceAgent.target_entropy = {target} must be finite, and "
                f"entropy_cost_adjustment_speed = {speed} finite and above 0"
            )
        self._target, self._speed = target, speed
        self.variable = tf.Variable(math.log(initial_cost) / speed, dtype=tf.float32, name="w")

    def cost(self) -> tf.Tensor:
        """c, <float32>[]."""
        return tf.exp(self._speed * self.variable)

    def loss(self, entropy: tf.Tensor) -> tf.Tensor:
        """c sg(H - target), of the mean entropy H; <float32>[] both."""
        return self.cost() * tf.stop_gradient(entropy - self._target)

    def clip(self) -> None:
        """Brings c back into its range, after a training step."""
        limit = MAX_LOG_COST / self._speed
        self.variable.assign(tf.clip_by_value(self.variable, -limit, limit))
