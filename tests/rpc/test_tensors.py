"""Arrays survive the trip; messages that lie are refused before their data is looked at."""

import numpy as np
import pytest

from tfdrl.rpc import tensor_pb2, tensors
from tfdrl.rpc.array_reader import ArrayReader


def round_trip(array, **expected):
    data = tensors.encode(array).SerializeToString()
    return tensors.decode(tensor_pb2.Tensor.FromString(data), **expected)


@pytest.mark.parametrize("dtype", sorted(tensors.DTYPES))
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_round_trip(dtype, shape):
    array = np.random.default_rng(0).integers(0, 2, shape).astype(dtype)
    result = round_trip(array)
    assert result.dtype == array.dtype and result.shape == array.shape
    np.testing.assert_array_equal(result, array)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(24, dtype=np.float32).reshape(2, 3, 4).transpose(2, 0, 1),
        np.arange(20, dtype=np.int16)[::-3],
        np.arange(6, dtype=">f8").reshape(2, 3),
        np.array([np.nan, np.inf, -0.0], np.float32),
    ],
    ids=["transposed", "strided", "big-endian", "not finite"],
)
def test_layout_and_byte_order_do_not_matter(array):
    np.testing.assert_array_equal(round_trip(array), array)


def test_decode_makes_a_view_that_cannot_be_written():
    result = round_trip(np.zeros(4, np.float32))
    assert not result.flags.owndata and not result.flags.writeable


@pytest.mark.parametrize(
    "array", [np.array([object()]), np.array(["text"]), np.array(["2020-01-01"], "datetime64[D]")]
)
def test_encode_refuses_what_is_not_a_number(array):
    with pytest.raises(tensors.MessageError, match="possible are: bool, float16"):
        tensors.encode(array, "weights")


def test_encode_refuses_too_many_dimensions():
    with pytest.raises(tensors.MessageError, match="9 dimensions; at most 8"):
        tensors.encode(np.zeros((1,) * 9))


BAD_MESSAGES = {
    "no dtype": ({}, "dtype ''"),
    "objects": ({"dtype": "object", "shape": [1], "data": b"x" * 8}, "dtype 'object'"),
    "byte order": ({"dtype": ">f4", "shape": [1], "data": b"x" * 4}, "dtype '>f4'"),
    "long dtype": ({"dtype": "x" * 10000}, "dtype 'x{40}'"),
    "too few bytes": ({"dtype": "float32", "shape": [2], "data": b"x" * 7}, "takes 8"),
    "too many bytes": ({"dtype": "float32", "shape": [2], "data": b"x" * 9}, "has 9 bytes"),
    "scalar without bytes": ({"dtype": "float32"}, "takes 4"),
    "negative": ({"dtype": "uint8", "shape": [-1, -4], "data": b"x" * 4}, "must not be negative"),
    "huge": ({"dtype": "uint8", "shape": [1 << 40]}, f"takes {1 << 40}"),
    # 2^32 * 2^32 is 0 in 64 bits.
    "overflow": ({"dtype": "uint8", "shape": [1 << 32, 1 << 32]}, f"takes {1 << 64}"),
    "rank": ({"dtype": "uint8", "shape": [1] * 9, "data": b"x"}, "9 dimensions"),
    "bool": ({"dtype": "bool", "shape": [2], "data": b"\1\2"}, "0 or 1"),
}


@pytest.mark.parametrize("name", BAD_MESSAGES)
def test_decode_refuses(name):
    fields, text = BAD_MESSAGES[name]
    with pytest.raises(tensors.MessageError, match=text):
        tensors.decode(tensor_pb2.Tensor(**fields), "observation")


def test_decode_checks_the_expected_dtype_and_shape():
    array = np.zeros((4, 84, 84), np.uint8)
    assert round_trip(array, dtype=np.uint8, shape=(None, 84, 84)).shape == (4, 84, 84)
    with pytest.raises(tensors.MessageError, match="tensor is uint8; expected float32"):
        round_trip(array, dtype=np.float32)
    for shape in [(4, 84, 83), (4, 84), (4, 84, 84, None)]:
        with pytest.raises(tensors.MessageError, match=r"shape \(4, 84, 84\); expected"):
            round_trip(array, shape=shape)


@pytest.mark.parametrize("fields", [b"\x10\x01" * 1001, b"\x0f", b"\x10\xff"])
def test_an_array_that_is_no_tensor_is_named(fields):
    reader = ArrayReader(np.dtype(np.float32), (3,), "reward")
    with pytest.raises(tensors.MessageError, match=r"^reward is not a tfdrl\.v1\.Tensor"):
        reader.read(memoryview(fields))
