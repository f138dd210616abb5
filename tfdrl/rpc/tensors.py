"""numpy arrays to and from `Tensor` messages: raw little-endian bytes, nothing pickled."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tfdrl.rpc import tensor_pb2

#: Element types that may travel; anything else (objects, strings, dates) is refused.
DTYPES = {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        "bool",
        "float16",
        "float32",
        "float64",
        "int8",
        "int16",
        "int32",
        "int64",
        "uint8",
        "uint16",
        "uint32",
        "uint64",
    )
}
MAX_RANK = 8
#: numpy takes microseconds to name a dtype.
_NAMES = {np.dtype(name): name for name in DTYPES}


class MessageError(ValueError):
    """A message that makes no sense; the text says what was wrong and what would be right."""


def encode(array: np.ndarray, name: str = "tensor") -> tensor_pb2.Tensor:
    """The message of `array`, of any layout and byte order. Copies the data.

    Raises MessageError for a dtype outside `DTYPES` or more than `MAX_RANK` dimensions.
    """
    array = np.asarray(array)
    dtype_name = _name_to_travel_by(array, name)
    return tensor_pb2.Tensor(
        dtype=dtype_name,
        shape=array.shape,
        data=array.astype(DTYPES[dtype_name], copy=False).tobytes(),
    )


def elements(array: np.ndarray, name: str = "tensor") -> memoryview:
    """The bytes of `array` in a message: its own ones, not copied, if they lie as they travel.

    Raises MessageError as `encode`.
    """
    array = np.ascontiguousarray(array, DTYPES[_name_to_travel_by(array, name)])
    return memoryview(array.reshape(-1).view(np.uint8))


def _name_to_travel_by(array: np.ndarray, name: str) -> str:
    dtype_name = name_of(array.dtype)
    if dtype_name is None:
        raise MessageError(_unknown_dtype(name, array.dtype.name))
    if array.ndim > MAX_RANK:
        raise MessageError(f"{name} has {array.ndim} dimensions; at most {MAX_RANK} may travel")
    return dtype_name


def name_of(dtype: np.dtype) -> str | None:
    """The name by which a dtype of any byte order travels; None if it may not."""
    found = _NAMES.get(dtype)
    if found is None and dtype.name in DTYPES:
        return dtype.name
    return found


def decode(
    message: tensor_pb2.Tensor,
    name: str = "tensor",
    *,
    dtype: np.dtype | None = None,
    shape: Sequence[int | None] | None = None,
) -> np.ndarray:
    """The array of `message`: a read-only view of its bytes.

    Args:
      message: as received, from anybody.
      name: what to call it in an error.
      dtype: the only element type accepted, if given.
      shape: the only shape accepted, if given; None stands for any size.

    Raises MessageError before it looks at the data if dtype, rank, a size, the number of bytes
    or the expected dtype and shape do not fit.
    """
    return to_array(message.dtype, message.shape, message.data, name, dtype=dtype, shape=shape)


def to_array(
    dtype_name: str,
    sizes: Sequence[int],
    data: bytes | memoryview,
    name: str = "tensor",
    *,
    dtype: np.dtype | None = None,
    shape: Sequence[int | None] | None = None,
) -> np.ndarray:
    """As `decode`, of a message's fields."""
    stored = DTYPES.get(dtype_name)
    sizes = tuple(sizes)
    is_as_expected = stored == dtype and sizes == shape and stored.kind != "b"
    if is_as_expected and len(data) == math.prod(sizes) * stored.itemsize:
        return np.frombuffer(data, stored).reshape(sizes)  # the usual case
    if stored is None:
        raise MessageError(_unknown_dtype(name, dtype_name))
    if dtype is not None and stored != np.dtype(dtype):
        raise MessageError(f"{name} is {dtype_name}; expected {np.dtype(dtype).name}")
    if len(sizes) > MAX_RANK:
        raise MessageError(f"{name} has {len(sizes)} dimensions; at most {MAX_RANK}")
    if min(sizes, default=0) < 0:
        raise MessageError(f"{name} has shape {sizes}; sizes must not be negative")
    if shape is not None and not _fits(sizes, shape):
        raise MessageError(f"{name} has shape {sizes}; expected {tuple(shape)} (None: any)")
    expected_bytes = math.prod(sizes) * stored.itemsize
    if len(data) != expected_bytes:
        raise MessageError(
            f"{name} has {len(data)} bytes; shape {sizes} of {dtype_name} takes {expected_bytes}"
        )
    # Any other byte in a boolean array makes numpy's own operations disagree with each other.
    if stored.kind == "b" and np.frombuffer(data, np.uint8).max(initial=0) > 1:
        raise MessageError(f"{name} is bool; its bytes must be 0 or 1")
    return np.frombuffer(data, stored).reshape(sizes)


def _fits(sizes: Sequence[int], expected: Sequence[int | None]) -> bool:
    return len(sizes) == len(expected) and all(
        want is None or size == want for size, want in zip(sizes, expected)
    )


def _unknown_dtype(name: str, dtype: str) -> str:
    return f"{name} has dtype {dtype[:40]!r}; possible are: {', '.join(DTYPES)}"
