"""Protocol buffers' wire format, for messages whose arrays are too large to be copied about.

The protobuf library copies a bytes field twice when it parses a message, and twice when it writes
one. These functions split a message into views of its fields, and join one from its parts.
Format: https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from tfdrl.rpc import tensor_pb2, tensors
from tfdrl.rpc.tensors import MessageError

LENGTH_DELIMITED = 2
#: Number of the field of a Tensor that has the elements.
TENSOR_DATA = 3
_FIXED_BYTES = {1: 8, 5: 4}
#: Of one message. Each costs time in Python, and a megabyte holds half a million of them.
MAX_FIELDS = 1000


def fields(
    message: memoryview, max_fields: int = MAX_FIELDS
) -> Iterator[tuple[int, int, memoryview, memoryview]]:
    """Splits a message into (field number, wire type, the whole field, its value).

    The value of a length-delimited field is what the length delimits; of others, its bytes.

    Raises MessageError if the message ends too early, has too many fields, or is none.
    """
    position, end, count = 0, len(message), 0
    while position < end:
        count += 1
        if count > max_fields:
            raise MessageError(f"more than {max_fields} fields")
        start = position
        # Numbers of one byte, as most are, without a call.
        tag, position = message[position], position + 1
        if tag > 0x7F:
            tag, position = _varint(message, start)
        kind = tag & 7
        if kind == LENGTH_DELIMITED:
            if position < end and message[position] < 0x80:
                length, position = message[position], position + 1
            else:
                length, position = _varint(message, position)
            value_start, position = position, position + length
        elif kind == 0:
            value_start = position
            _, position = _varint(message, position)
        elif kind in _FIXED_BYTES:
            value_start, position = position, position + _FIXED_BYTES[kind]
        else:
            raise MessageError(f"a field of wire type {kind}")
        if position > end or tag < 8:
            raise MessageError("a field that ends behind its message")
        yield tag >> 3, kind, message[start:position], message[value_start:position]


def head(number: int, length: int) -> bytes:
    """What stands before the `length` bytes of a length-delimited field."""
    return _encoded_varint(number << 3 | LENGTH_DELIMITED) + _encoded_varint(length)


def tensor_head(number: int, dtype: np.dtype, shape: Sequence[int]) -> bytes:
    """What stands before the elements of a Tensor that is field `number` of a message.

    Args:
      number: of the field.
      dtype: that may travel.
      shape: of the array.
    """
    start = elements_head(dtype, shape)
    return head(number, len(start) + _nbytes(dtype, shape)) + start


def elements_head(dtype: np.dtype, shape: Sequence[int]) -> bytes:
    """What stands before the elements in a Tensor."""
    start = tensor_pb2.Tensor(dtype=tensors.name_of(dtype), shape=shape).SerializeToString()
    return start + head(TENSOR_DATA, _nbytes(dtype, shape))


def _nbytes(dtype: np.dtype, shape: Sequence[int]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * dtype.itemsize


def tensor_fields(message: memoryview) -> tuple[str, Sequence[int], memoryview]:
    """Dtype, shape and elements of a Tensor, unchecked: what `tensors.to_array` takes."""
    rest, data = [], memoryview(b"")
    for number, kind, field, value in fields(message):
        if number == TENSOR_DATA and kind == LENGTH_DELIMITED:
            data = value
        else:
            rest.append(field)
    tensor = tensor_pb2.Tensor.FromString(b"".join(rest))
    return tensor.dtype, tensor.shape, data


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= len(message) or shift > 63:
            raise MessageError("a number that has no end")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7


def _encoded_varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
