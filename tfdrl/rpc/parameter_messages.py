"""Parameters as a ParametersReply: megabytes, which the protobuf library would copy about.

It copies each array four times when it writes the message, between two learner steps, and twice
when it reads one, which an actor waits for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfdrl.rpc import protobuf_views, tensors, training_pb2

#: Number of the field of a ParametersReply.
_TENSORS = 3
#: Who reads has joined the learner's run; this bounds only what a broken message costs.
_MAX_PARAMETERS = 1 << 16


def written(version: int, arrays: Sequence[np.ndarray]) -> bytes:
    """The message, for which each array is copied once. Raises MessageError as `encode`."""
    parts = [training_pb2.ParametersReply(modified=True, version=version).SerializeToString()]
    for i, array in enumerate(arrays):
        elements = tensors.elements(array, f"parameter {i}")
        parts += [protobuf_views.tensor_head(_TENSORS, array.dtype, array.shape), elements]
    return b"".join(parts)


def read(data: bytes) -> tuple[int, list[np.ndarray]] | None:
    """The version and the arrays, read-only views of `data`; None if there are none.

    Raises MessageError, or protobuf's DecodeError.
    """
    rest, found = [], []
    for number, kind, field, value in protobuf_views.fields(memoryview(data), _MAX_PARAMETERS):
        if number == _TENSORS and kind == protobuf_views.LENGTH_DELIMITED:
            found.append(protobuf_views.tensor_fields(value))
        else:
            rest.append(field)
    reply = training_pb2.ParametersReply.FromString(b"".join(rest))
    if not reply.modified:
        return None
    arrays = [tensors.to_array(*each, f"parameter {i}") for i, each in enumerate(found)]
    return reply.version, arrays
