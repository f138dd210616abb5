"""Arrays that TensorFlow reads where they are, and results that wait for nobody.

`tf.convert_to_tensor` copies an array, with the interpreter's lock held: 25 ms for 18 MB of new
memory, in which no other thread answers anybody. So does `numpy()` of a tensor that a GPU has not
computed yet: it waits, with the lock. A call of a compiled function holds no lock: it reads arrays
where they are, takes them to its device, and brings its results back.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tfdrl.types import Nest

#: Bytes; TensorFlow aborts the process at a tensor that does not begin at a multiple.
_ALIGNMENT = 64
#: Smaller ones are copied sooner than told where they are.
_LEAST_BYTES = 1 << 12
#: Kinds of dtypes that TensorFlow takes by DLPack: integers, floating-point numbers.
_KINDS = "iuf"


def aligned_empty(shape: Sequence[int], dtype: np.typing.DTypeLike) -> np.ndarray:
    """As `np.empty`; `shared` does not copy it."""
    dtype = np.dtype(dtype)
    nbytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    room = np.empty(nbytes + _ALIGNMENT, np.uint8)
    start = -room.ctypes.data % _ALIGNMENT
    return room[start : start + nbytes].view(dtype).reshape(shape)


def shared(array: np.ndarray) -> tf.Tensor:
    """A tensor of the array's own memory if it is aligned, else of a copy.

    Of each call a new one: TensorFlow may keep what it has brought to a device. The array must not
    change until what was computed from the tensor is there.
    """
    if (
        array.nbytes < _LEAST_BYTES
        or array.dtype.kind not in _KINDS
        or not (array.flags.c_contiguous and array.flags.writeable and array.dtype.isnative)
        or array.ctypes.data % _ALIGNMENT
    ):
        return tf.convert_to_tensor(array)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


def on_host(function: Callable, jit_compile: bool = False) -> Callable:
    """A `tf.function` whose results are in the host's memory when it returns.

    Args:
      function: of tensors.
      jit_compile: whether XLA compiles it.
    """
    inner = tf.function(function, jit_compile=jit_compile or None)

    @tf.autograph.experimental.do_not_convert
    def run(*args):
        return brought_to_host(inner(*args))

    return tf.function(run)


def brought_to_host(results: Nest) -> Nest:
    """In a compiled function: its results, as tensors of the host's memory."""
    if not tf.config.list_physical_devices("GPU") and not tf.config.list_physical_devices("TPU"):
        return results  # they are there
    with tf.device("CPU:0"):
        return tf.nest.map_structure(tf.identity, results)
