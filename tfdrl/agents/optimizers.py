"""Optimizers and learning-rate schedules as gin factories, under the names of the papers' rules.

TensorFlow has several rules called RMSProp. All here have epsilon inside the square root.
`rmsprop` and `rmsprop_centred` start their averages at 0, as A3C, Nature DQN and Ape-X do;
`rmsprop_release` starts it at 1, as IMPALA's release does. The scale of epsilon and of the
gradients belong together: a loss that is a sum and one that is a mean want different ones.

Every `learning_rate` is a number or a schedule over learner steps, in a gin file

    adam.learning_rate = @linear_schedule()
"""

from __future__ import annotations

import gin
import tensorflow as tf

from tfdrl.errors import ConfigurationError


@gin.configurable
def linear_schedule(
    initial: float = gin.REQUIRED, final: float = 0.0, steps: int = gin.REQUIRED
) -> tf.keras.optimizers.schedules.LearningRateSchedule:
    """A learning rate that falls linearly, then stays (Espeholt 2018, table G.1: 0.0006 to 0).

    It counts the optimizer's steps, which a checkpoint holds: a run that continues goes on where
    it was.

    Args:
      initial: learning rate of the first step.
      final: learning rate after `steps` steps.
      steps: learner steps from one to the other. Papers give environment frames: divide those by
        the frames of a batch.

    Raises:
      ConfigurationError: a rate that is negative, or fewer steps than 1.
    """
    if initial < 0 or final < 0:
        raise ConfigurationError(
            f"linear_schedule goes from {initial} to {final}; learning rates must be 0 or more"
        )
    if steps < 1:
        raise ConfigurationError(f"linear_schedule.steps = {steps} must be 1 or more learner steps")
    return tf.keras.optimizers.schedules.PolynomialDecay(initial, steps, final, power=1.0)


@gin.configurable
def adam(learning_rate: float = 1e-4, epsilon: float = 1e-7, beta_1: float = 0.9):
    """Adam (Kingma 2015).

    Args:
      learning_rate: a number, or a schedule such as @linear_schedule().
      epsilon: added to the root of the second moment.
      beta_1: decay of the mean of the gradients.
    """
    return tf.keras.optimizers.Adam(
        learning_rate, epsilon=epsilon, beta_1=beta_1, jit_compile=False
    )


@gin.configurable
def rmsprop(learning_rate: float = 7e-4, decay: float = 0.99, epsilon: float = 0.1):
    """Non-centred RMSProp as in A3C: n = decay n + (1-decay) g^2; step g / sqrt(n + epsilon).

    Args:
      learning_rate: a number, or a schedule such as @linear_schedule().
      decay: of the averages, at each step.
      epsilon: added to n, under the root.
    """
    return tf.keras.optimizers.RMSprop(learning_rate, rho=decay, epsilon=epsilon, jit_compile=False)


@gin.configurable
def rmsprop_release(learning_rate: float = 6e-4, decay: float = 0.99, epsilon: float = 0.01):
    """RMSProp as in IMPALA's release: `rmsprop`, but n starts at 1 (Espeholt 2018, table G.1).

    TensorFlow 1's rule, without momentum. From 1, the first step is about learning_rate g, small
    where g is; from 0, it is 10 learning_rate for every g far above the root of epsilon.
    The defaults are those for Atari, with a loss that is a sum over 32 unrolls of 20 steps.

    Args:
      learning_rate: a number, or a schedule such as @linear_schedule().
      decay: of the averages, at each step.
      epsilon: added to n, under the root.
    """
    return _ReleaseRMSprop(learning_rate, rho=decay, epsilon=epsilon, jit_compile=False)


class _ReleaseRMSprop(tf.keras.optimizers.RMSprop):
    """Keras' RMSprop, whose average of squares starts at 1."""

    def add_variable_from_reference(
        self, model_variable, variable_name, shape=None, initial_value=None
    ):
        if variable_name == "velocity":
            initial_value = tf.ones(model_variable.shape, model_variable.dtype)
        return super().add_variable_from_reference(
            model_variable, variable_name, shape, initial_value
        )


@gin.configurable
def rmsprop_centred(
    learning_rate: float = 0.00025 / 4, decay: float = 0.95, epsilon: float = 1.5e-7
):
    """Centred RMSProp, no momentum (Ape-X, appendix C; Graves 2013): g / sqrt(n - m^2 + eps).

    Args:
      learning_rate: a number, or a schedule such as @linear_schedule().
      decay: of the averages, at each step.
      epsilon: added under the root.
    """
    return tf.keras.optimizers.RMSprop(
        learning_rate, rho=decay, epsilon=epsilon, centered=True, jit_compile=False
    )


@gin.configurable
def sgd(learning_rate: float = 1e-3):
    """Plain stochastic gradient descent.

    Args:
      learning_rate: a number, or a schedule such as @linear_schedule().
    """
    return tf.keras.optimizers.SGD(learning_rate, jit_compile=False)
