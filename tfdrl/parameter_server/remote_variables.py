"""Variables of a parameter server, by name: handles and operations in a graph."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def variable(name: str, shape: Sequence[int], dtype: tf.DType = tf.float32) -> tf.Tensor:
    """The handle of a variable of the parameter server; it need not exist yet."""
    return tf.raw_ops.VarHandleOp(dtype=dtype, shape=shape, shared_name=name, container="")


def read(handle: tf.Tensor) -> tf.Tensor:
    """Its value."""
    return tf.raw_ops.ReadVariableOp(resource=handle, dtype=handle.op.get_attr("dtype"))


def assign(handle: tf.Tensor, value: tf.Tensor) -> tf.Operation:
    """Replaces its value."""
    return tf.raw_ops.AssignVariableOp(resource=handle, value=value)


def add(handle: tf.Tensor, value: tf.Tensor) -> tf.Operation:
    """Adds to its value, as one indivisible step."""
    return tf.raw_ops.AssignAddVariableOp(resource=handle, value=value)


def zero(handle: tf.Tensor) -> tf.Operation:
    """Sets all its elements to 0."""
    shape = handle.op.get_attr("shape")
    return assign(handle, tf.zeros(tf.TensorShape(shape), handle.op.get_attr("dtype")))
