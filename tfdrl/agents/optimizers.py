"""Optimizers as gin factories, under the names by which the papers' rules are known.

TensorFlow has several rules called RMSProp: `rmsprop` and `rmsprop_centred` have epsilon inside
the square root and start their averages at 0, as A3C, Nature DQN and Ape-X do.
"""

from __future__ import annotations

import gin
import tensorflow as tf


@gin.configurable
def adam(learning_rate: float = 1e-4, epsilon: float = 1e-7, beta_1: float = 0.9):
    """Adam (Kingma 2015)."""
    return tf.keras.optimizers.Adam(
        learning_rate, epsilon=epsilon, beta_1=beta_1, jit_compile=False
    )


@gin.configurable
def rmsprop(learning_rate: float = 7e-4, decay: float = 0.99, epsilon: float = 0.1):
    """Non-centred RMSProp as in A3C: n = decay n + (1-decay) g^2; step g / sqrt(n + epsilon)."""
    return tf.keras.optimizers.RMSprop(learning_rate, rho=decay, epsilon=epsilon, jit_compile=False)


@gin.configurable
def rmsprop_centred(
    learning_rate: float = 0.00025 / 4, decay: float = 0.95, epsilon: float = 1.5e-7
):
    """Centred RMSProp, no momentum (Ape-X, appendix C; Graves 2013): g / sqrt(n - m^2 + eps)."""
    return tf.keras.optimizers.RMSprop(
        learning_rate, rho=decay, epsilon=epsilon, centered=True, jit_compile=False
    )


@gin.configurable
def sgd(learning_rate: float = 1e-3):
    """Plain stochastic gradient descent."""
    return tf.keras.optimizers.SGD(learning_rate, jit_compile=False)
