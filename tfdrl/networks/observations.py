"""The one rule by which all networks here see observations. What is stored and sent stays small.

- An integer that names something (a Discrete or MultiDiscrete space) is one-hot.
- An image of bytes is divided by 255; of bits (bool, MultiBinary), it is not.
- Everything else is the number that it is.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfdrl.errors import ConfigurationError

#: Of one observation array. A first layer of 256 units has 100 MB of weights for so many.
_MAX_CATEGORIES = 100_000


def is_categorical(spec: tf.TensorSpec) -> bool:
    """Whether the integers of an observation's spec name something and measure nothing."""
    return getattr(spec, "categorical", False)


def is_image(spec: tf.TensorSpec) -> bool:
    """Whether a spec is of [height, width, channels]."""
    return spec.shape.rank == 3 and not is_categorical(spec)


def as_floats(observation, specs) -> list[tf.Tensor]:
    """The leaves of an observation as a network takes them: <float32>[N, ...].

    Args:
      observation: nest of [N, ...].
      specs: nest of TensorSpecs, without the dimension N.

    Raises:
      ConfigurationError: too many categories for a one-hot vector.
    """
    leaves, flat_specs = tf.nest.flatten(observation), tf.nest.flatten(specs)
    return [_as_float(leaf, spec) for leaf, spec in zip(leaves, flat_specs)]


def as_vector(observation, specs) -> tf.Tensor:
    """All of an observation side by side, <float32>[N, F]; see `as_floats`."""
    return side_by_side(as_floats(observation, specs))


def vector_size(specs) -> int:
    """F of `as_vector`."""
    return sum(
        sum(num_categories(spec)) if is_categorical(spec) else spec.shape.num_elements()
        for spec in tf.nest.flatten(specs)
    )


def side_by_side(leaves: list[tf.Tensor]) -> tf.Tensor:
    """All of [N, ...] flattened and concatenated: [N, F]."""
    flat = [tf.reshape(leaf, [-1, leaf.shape[1:].num_elements()]) for leaf in leaves]
    return flat[0] if len(flat) == 1 else tf.concat(flat, axis=-1)


def num_categories(spec) -> list[int]:
    """How many values each element of bounded integers takes, in the order of their memory."""
    counts = np.subtract(spec.maximum, spec.minimum, dtype=np.int64) + 1
    return np.broadcast_to(counts, spec.shape.as_list()).reshape(-1).tolist()


def one_hot(values: tf.Tensor, spec) -> tf.Tensor:
    """The one-hot vectors of all elements of [..., *spec.shape], side by side: <float32>[..., F].

    An element that is outside its bounds is all zeros.
    """
    counts = num_categories(spec)
    minimum = np.broadcast_to(spec.minimum, spec.shape.as_list()).reshape(-1)
    element = np.repeat(np.arange(len(counts)), counts)
    category = np.concatenate([low + np.arange(count) for low, count in zip(minimum, counts)])
    values = tf.convert_to_tensor(values)
    outer = tf.shape(values)[: values.shape.rank - spec.shape.rank]
    flat = tf.reshape(values, tf.concat([outer, [len(counts)]], axis=0))
    found = tf.gather(flat, element, axis=-1) == tf.constant(category, values.dtype)
    return tf.cast(found, tf.float32)


def _as_float(leaf: tf.Tensor, spec) -> tf.Tensor:
    if is_categorical(spec):
        _check_count(spec)
        return one_hot(leaf, spec)
    values = tf.cast(leaf, tf.float32)
    is_bytes = spec.dtype == tf.uint8 and np.any(getattr(spec, "maximum", 255) > 1)
    return values / 255.0 if is_bytes and is_image(spec) else values


def _check_count(spec) -> None:
    count = sum(num_categories(spec))
    if count > _MAX_CATEGORIES:
        raise ConfigurationError(
            f"{spec.name or 'an observation'} has {count} categories, too many for a one-hot "
            f"vector (at most {_MAX_CATEGORIES}): use a Keras model with an Embedding layer in "
            "KerasQNetwork or KerasActorCriticNetwork, or a gymnasium.ObservationWrapper"
        )
