"""Update rules as operations on variables that live on a parameter server.

A rule's kernel changes parameters and slots in place, where they are. There is no lock over a whole
push (Mnih 2016, section 4; Recht 2011): two that meet may mix, some variables by one first and some
by the other. Within one variable TensorFlow's kernels let one finish before the next.
"""

from __future__ import annotations

from collections.abc import Mapping

import tensorflow as tf

from tfdrl.parameter_server.settings import ParameterServerSettings


def slot_initial_values(settings: ParameterServerSettings) -> dict[str, float]:
    """The slots that a rule keeps for each variable, of its shape, and what they start from."""
    return {
        "sgd": {},
        "adagrad": {"accumulator": settings.initial_accumulator},
        "rmsprop": {"mean_square": 0.0, "momentum": 0.0},
        "adam": {"first_moment": 0.0, "second_moment": 0.0},
    }[settings.rule]


def learning_rate(settings: ParameterServerSettings, steps: tf.Tensor) -> tf.Tensor:
    """<float32>[]: annealed to 0 over the global steps (Mnih 2016, section 8), or constant.

    Args:
      steps: <int64>[], agent steps of all workers so far.
    """
    rate = tf.constant(settings.learning_rate, tf.float32)
    if settings.anneal_steps is None:
        return rate
    left = 1.0 - tf.cast(steps, tf.float64) / settings.anneal_steps
    return rate * tf.cast(tf.maximum(left, 0.0), tf.float32)


def apply(
    settings: ParameterServerSettings,
    variable: tf.Tensor,
    slots: Mapping[str, tf.Tensor],
    gradient: tf.Tensor,
    rate: tf.Tensor,
    updates: tf.Tensor,
) -> tf.Operation:
    """One update of one variable.

    | rule    | update                                                                |
    |---------|-----------------------------------------------------------------------|
    | sgd     | w -= rate g                                                           |
    | adagrad | s += g^2; w -= rate g / (sqrt(s) + epsilon)  (Duchi 2011)             |
    | rmsprop | n = decay n + (1 - decay) g^2; w -= rate g / sqrt(n + epsilon)        |
    |         | (Mnih 2016, section 4: shared RMSProp)                                |
    | adam    | Kingma 2015, algorithm 1                                              |

    Args:
      settings: the rule and its constants.
      variable: resource handle of the parameters.
      slots: resource handles by the names of `slot_initial_values`.
      gradient: <float32> of the variable's shape.
      rate: <float32>[].
      updates: <int64>[], updates before this one (Adam's t - 1).
    """
    ops, epsilon = tf.raw_ops, settings.rule_epsilon
    if settings.rule == "sgd":
        return ops.ResourceApplyGradientDescent(var=variable, alpha=rate, delta=gradient)
    if settings.rule == "adagrad":
        return ops.ResourceApplyAdagradV2(
            var=variable, accum=slots["accumulator"], lr=rate, epsilon=epsilon, grad=gradient
        )
    if settings.rule == "rmsprop":
        return ops.ResourceApplyRMSProp(
            var=variable,
            ms=slots["mean_square"],
            mom=slots["momentum"],  # the kernel wants it; without momentum it is the last step
            lr=rate,
            rho=settings.decay,
            momentum=0.0,
            epsilon=epsilon,
            grad=gradient,
        )
    t = tf.cast(updates + 1, tf.float32)
    return ops.ResourceApplyAdam(
        var=variable,
        m=slots["first_moment"],
        v=slots["second_moment"],
        beta1_power=tf.pow(settings.beta_1, t),
        beta2_power=tf.pow(settings.beta_2, t),
        lr=rate,
        beta1=settings.beta_1,
        beta2=settings.beta_2,
        epsilon=epsilon,
        grad=gradient,
    )
