"""Arrays that TensorFlow reads where they are."""

import numpy as np
import pytest
import tensorflow as tf

from tfdrl.runtime.host_tensors import aligned_empty, on_host, shared


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "float32", "float64"])
def test_an_aligned_array_is_not_copied(dtype):
    array = aligned_empty((3, 5, 700), dtype)
    array[...] = np.arange(array.size).reshape(array.shape) % 100
    assert (array.shape, array.dtype, array.ctypes.data % 64) == ((3, 5, 700), dtype, 0)
    tensor = shared(array)
    assert tensor.dtype == dtype
    np.testing.assert_array_equal(tensor, array)
    array[1, 2, 3] = 111
    assert tensor[1, 2, 3] == 111


def test_the_memory_stays_while_a_tensor_of_it_is_there():
    tensor = shared(np.full(1, 7) + aligned_empty((2000,), "int64") * 0)
    copies = [np.zeros(2000, "int64") for _ in range(50)]
    assert not np.any(copies) and (tensor.numpy() == 7).all()


def _aligned(shape=(64, 64), dtype="float32"):
    array = aligned_empty(shape, dtype)
    array[...] = 1
    return array


def _read_only():
    array = _aligned()
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "array",
    [
        _aligned().T,
        _aligned()[1:, 1:],
        _aligned((5000,))[1:],
        _aligned().astype(">f4"),
        _aligned((5000,), bool),
        np.full(5000, "word"),
        _read_only(),
        _aligned((0, 7)),
        np.float32(3.0) * np.ones(()),
    ],
    ids=[
        "columns",
        "part",
        "not aligned",
        "big-endian",
        "bool",
        "text",
        "read-only",
        "none",
        "one",
    ],
)
def test_any_other_array_is_copied(array):
    tensor = shared(array)
    wanted = array.astype(bytes) if array.dtype.kind == "U" else array
    np.testing.assert_array_equal(tensor, wanted)
    if array.size and array.flags.writeable:
        array.flat[0] = 0
        assert tensor.numpy().flat[0] == wanted.flat[-1]


@pytest.mark.parametrize("jit_compile", [False, True])
def test_results_come_to_the_host(jit_compile):
    run = on_host(lambda x: {"a": x + 1, "b": (2 * x,)}, jit_compile)
    found = run(shared(_aligned()))
    assert (found["a"].numpy() == 2).all() and (found["b"][0].numpy() == 2).all()
    assert all("CPU:0" in leaf.device for leaf in tf.nest.flatten(found))
