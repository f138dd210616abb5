"""Acting gives a network a batch [B, ...], learning a batch of sequences [B, T, ...]."""

from __future__ import annotations

import tensorflow as tf


def outer_dims(values, specs) -> list[int | tf.Tensor]:
    """The dimensions [B] or [B, T] that `values` have before those of `specs`.

    Args:
      values: nest of [B, ...] or [B, T, ...].
      specs: nest of TensorSpecs without these dimensions.

    Returns:
      Python integers where they are known, else scalar tensors.

    Raises:
      ValueError: there are no outer dimensions, or more than two.
    """
    value, spec = tf.nest.flatten(values)[0], tf.nest.flatten(specs)[0]
    rank = value.shape.rank - spec.shape.rank
    if rank not in (1, 2):
        raise ValueError(
            f"expected [B, ...] or [B, T, ...] before the dimensions {spec.shape} of "
            f"{spec.name or 'the input'}, got the shape {value.shape}"
        )
    static = value.shape[:rank].as_list()
    if None not in static:
        return static
    dynamic = tf.shape(value)
    return [dynamic[i] if size is None else size for i, size in enumerate(static)]


def merge_outer_dims(values, specs):
    """Makes [B, T, ...] to [B * T, ...], where layers take one batch dimension; see above."""
    if len(outer_dims(values, specs)) == 1:
        return values
    return tf.nest.map_structure(
        lambda value, spec: tf.reshape(value, [-1, *spec.shape]), values, specs
    )


def split_outer_dims(tensor: tf.Tensor, dims) -> tf.Tensor:
    """The reverse for one tensor [B * T, ...], with the `outer_dims` of the input."""
    if len(dims) == 1:
        return tensor
    return tf.reshape(tensor, [*dims, *tensor.shape[1:]])
