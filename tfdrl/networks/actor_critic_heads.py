"""Policy heads: features in, a distribution over actions out."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.specs import BoundedTensorSpec

from tfdrl.errors import ConfigurationError
from tfdrl.networks.observations import num_categories

#: Gain of the last layer of a policy. With 0.01 the first policy hardly depends on the
#: observation and is almost uniform (or of mean 0), so that it explores before it prefers.
_FINAL_GAIN = 0.01
#: The logit of what cannot be chosen. Infinity would make gradients that are not numbers.
IMPOSSIBLE = tf.float32.min


def check_action_spec(action_spec) -> None:
    """Refuses action specs that no policy head here is for.

    Raises:
      ConfigurationError: neither one array of integers that start at 0 nor one of float32.
    """
    flat = tf.nest.flatten(action_spec)
    if len(flat) == 1:
        spec = flat[0]
        is_count = isinstance(spec, BoundedTensorSpec) and spec.dtype.is_integer
        if spec.dtype == tf.float32 or (is_count and not np.any(spec.minimum)):
            return
    raise ConfigurationError(
        "an actor-critic network here supports discrete actions counted from 0 (a Gymnasium "
        "Discrete or MultiDiscrete space) or one array of continuous actions (a Box of floats), "
        f"but the environment's action spec is {action_spec}; for others write a network of your "
        "own"
    )


def num_outputs(action_spec) -> int:
    """Logits of a discrete action, of all its elements; elements of a continuous one."""
    check_action_spec(action_spec)
    (spec,) = tf.nest.flatten(action_spec)
    return sum(num_categories(spec)) if spec.dtype.is_integer else spec.shape.num_elements()


def categorical(logits: tf.Tensor, action_spec) -> tfp.distributions.Distribution:
    """A distribution over a discrete action: a Categorical, or independent ones for an array.

    The log-probability and the entropy of an array are the sums of its elements'.

    Args:
      logits: <float32>[..., A], of a scalar; of an array those of its elements, side by side.
      action_spec: one array of integers that start at 0.
    """
    (spec,) = tf.nest.flatten(action_spec)
    if spec.shape.rank == 0:
        return tfp.distributions.Categorical(logits=logits, dtype=spec.dtype)
    logits = by_element(logits, spec, IMPOSSIBLE)
    each = tfp.distributions.Categorical(logits=logits, dtype=spec.dtype)
    return tfp.distributions.Independent(each, reinterpreted_batch_ndims=spec.shape.rank)


def by_element(values: tf.Tensor, spec, missing) -> tf.Tensor:
    """What belongs to the values of an array's elements, side by side, for each element by itself.

    Args:
      values: [..., A]; A is the sum of the numbers of values.
      spec: of the array of integers.
      missing: for the values that an element lacks and another has.

    Returns [..., *spec.shape, most values of an element].
    """
    counts = np.array(num_categories(spec))
    most = counts.max()
    shape = [*_dims(values)[:-1], *spec.shape, most]
    if np.all(counts == most):
        return tf.reshape(values, shape)
    exists = np.arange(most) < counts[:, None]
    place = np.where(exists, np.cumsum(exists).reshape(exists.shape) - 1, 0)
    padded = tf.where(exists, tf.gather(values, place, axis=-1), missing)
    return tf.reshape(padded, shape)


def mask_of_elements(mask: tf.Tensor, action_spec) -> tf.Tensor:
    """The mask <any>[..., A] of a discrete action as it is; <bool>[..., *shape, most] of an array.

    `most` is how many values an element has at most; of those that it lacks none is allowed.
    """
    if action_spec.shape.rank == 0:
        return mask
    return by_element(tf.cast(mask, tf.bool), action_spec, False)


def gaussian(mean: tf.Tensor, raw_std: tf.Tensor, action_spec) -> tfp.distributions.Independent:
    """A Gaussian with a diagonal covariance.

    Independent normals, not a MultivariateNormalDiag: the same numbers in a third of the ops.

    Args:
      mean: <float32>[..., d], d the number of elements of the action.
      raw_std: <float32>[..., d], of which the standard deviation is the softplus.
      action_spec: one array of float32.
    """
    (spec,) = tf.nest.flatten(action_spec)
    std = tf.nn.softplus(raw_std)
    if spec.shape.rank != 1:
        shape = [*_dims(mean)[:-1], *spec.shape]
        mean, std = tf.reshape(mean, shape), tf.reshape(std, shape)
    normal = tfp.distributions.Normal(mean, std)
    return tfp.distributions.Independent(normal, reinterpreted_batch_ndims=spec.shape.rank)


class CategoricalHead(tf.keras.layers.Layer):
    """Features [..., F] to Categoricals of batch shape [...], by one linear layer."""

    def __init__(self, action_spec, name: str = "policy"):
        super().__init__(name=name, autocast=False)
        self._action_spec = action_spec
        self._logits = _final_layer(num_outputs(action_spec), "logits")

    def call(self, features):
        return categorical(self._logits(features), self._action_spec)


class GaussianHead(tf.keras.layers.Layer):
    """Features [..., F] to a Gaussian of batch shape [...]: a linear mean, a standard deviation.

    The deviation is a trainable variable that does not depend on the observation. Actions are
    unbounded, and in the units of the action spec; the environment clips them.

    Args:
      action_spec: one array of float32.
      initial_std: standard deviation before training.
    """

    def __init__(self, action_spec, initial_std: float = 1.0, name: str = "policy"):
        super().__init__(name=name, autocast=False)
        if not 0.0 < initial_std < np.inf:
            raise ConfigurationError(f"initial_std = {initial_std} must be positive and finite")
        self._action_spec = action_spec
        self._initial_std = initial_std
        self._mean = _final_layer(num_outputs(action_spec), "mean")

    def build(self, input_shape):
        # The inverse of softplus, written so that it does not overflow.
        raw = self._initial_std + np.log(-np.expm1(-self._initial_std))
        self._raw_std = self.add_weight(
            "raw_std",
            [num_outputs(self._action_spec)],
            initializer=tf.keras.initializers.Constant(raw),
        )
        super().build(input_shape)

    def call(self, features):
        mean = self._mean(features)
        # With the shape of the mean, so that every parameter has all outer dimensions.
        raw_std = tf.broadcast_to(self._raw_std, _dims(mean))
        return gaussian(mean, raw_std, self._action_spec)


def policy_head(action_spec, initial_std: float) -> tf.keras.layers.Layer:
    """The head for an action spec.

    Raises:
      ConfigurationError: as `check_action_spec`.
    """
    check_action_spec(action_spec)
    (spec,) = tf.nest.flatten(action_spec)
    if spec.dtype.is_integer:
        return CategoricalHead(action_spec)
    return GaussianHead(action_spec, initial_std)


def _final_layer(outputs: int, name: str) -> tf.keras.layers.Dense:
    initializer = tf.keras.initializers.Orthogonal(_FINAL_GAIN)
    return tf.keras.layers.Dense(outputs, kernel_initializer=initializer, name=name)


def _dims(tensor: tf.Tensor):
    """Its shape, static where it is known."""
    return tensor.shape if tensor.shape.is_fully_defined() else tf.unstack(tf.shape(tensor))
