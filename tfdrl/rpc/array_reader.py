"""Arrays of a stream, whose dtypes and shapes never change: compared as bytes where they come."""

from __future__ import annotations

import math

import numpy as np
from google.protobuf import message as protobuf

from tfdrl.rpc import protobuf_views, tensors
from tfdrl.rpc.tensors import MessageError


class ArrayReader:
    """Reads Tensor messages that must always have the same dtype and shape.

    Those that are written in the usual order are known by the bytes before their elements, which
    say the dtype, the shape and how many bytes follow. Others are parsed, and looked at field by
    field.

    Args:
      dtype, shape: that are expected.
      name: what to call the array in an error.
    """

    def __init__(self, dtype: np.dtype, shape: tuple[int, ...], name: str):
        self._name, self._dtype, self._shape = name, dtype, shape
        self._stored = tensors.DTYPES[tensors.name_of(dtype)]
        self._head = protobuf_views.elements_head(dtype, shape)
        self._length = len(self._head) + math.prod(shape) * self._stored.itemsize
        self._bytes_may_be_any = dtype.kind != "b"

    def read(self, tensor: memoryview) -> np.ndarray:
        """A read-only view of the elements. Raises MessageError for another dtype or shape."""
        start = len(self._head)
        is_known = len(tensor) == self._length and tensor[:start] == self._head
        if is_known and self._bytes_may_be_any:
            return np.frombuffer(tensor, self._stored, offset=start).reshape(self._shape)
        try:
            fields = protobuf_views.tensor_fields(tensor)
        except (MessageError, protobuf.DecodeError, UnicodeDecodeError) as error:
            raise MessageError(f"{self._name} is not a tfdrl.v1.Tensor message: {error}") from None
        return tensors.to_array(*fields, self._name, dtype=self._dtype, shape=self._shape)
