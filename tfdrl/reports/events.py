"""Scalars of TensorBoard's event files, read without TensorFlow."""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from google.protobuf import message as protobuf
from tensorboard.compat.proto import event_pb2

#: A record is its length <uint64>, that length's checksum <uint32>, the data, its checksum.
_LENGTH = struct.Struct("<Q")
_CHECKSUM_BYTES = 4


class Series(NamedTuple):
    """One scalar over time, in the order of time.

    secs    <float64>[k], Unix time
    steps   <int64>[k], of the writer: learner steps, or frames of one actor
    values  <float64>[k]
    """

    secs: np.ndarray
    steps: np.ndarray
    values: np.ndarray


#: What is read where nothing was written.
NOTHING = Series(np.zeros(0), np.zeros(0, np.int64), np.zeros(0))


def read(directory: pathlib.Path) -> dict[str, Series]:
    """All scalars in the event files of a directory, by tag; empty if there are none.

    A file that ends in the middle of a record, since it is being written or its writer was killed,
    is read up to there.
    """
    found: dict[str, list[tuple[float, int, float]]] = {}
    for path in sorted(directory.glob("events.out.tfevents.*")):
        for record in _records(path):
            try:
                event = event_pb2.Event.FromString(record)
            except protobuf.DecodeError:
                break
            for value in event.summary.value:
                number = _number(value)
                if number is not None:
                    row = (event.wall_time, event.step, number)
                    found.setdefault(value.tag, []).append(row)
    return {tag: _series(rows) for tag, rows in found.items()}


def _records(path: pathlib.Path) -> Iterator[bytes]:
    try:
        data = path.read_bytes()
    except OSError:
        return
    begin = 0
    while begin + _LENGTH.size + _CHECKSUM_BYTES <= len(data):
        (length,) = _LENGTH.unpack_from(data, begin)
        begin += _LENGTH.size + _CHECKSUM_BYTES
        if begin + length + _CHECKSUM_BYTES > len(data):
            return
        yield data[begin : begin + length]
        begin += length + _CHECKSUM_BYTES


def _number(value) -> float | None:
    """Of a summary of either form that TensorFlow writes scalars in; None of another kind."""
    if value.HasField("simple_value"):
        return value.simple_value
    tensor = value.tensor
    if not value.HasField("tensor") or tensor.tensor_shape.dim:
        return None
    if tensor.float_val:
        return tensor.float_val[0]
    if tensor.dtype == 1 and len(tensor.tensor_content) == 4:  # DT_FLOAT
        return struct.unpack("<f", tensor.tensor_content)[0]
    return None


def _series(rows: list[tuple[float, int, float]]) -> Series:
    rows.sort(key=lambda row: row[0])  # several starts, each with a file
    secs, steps, values = zip(*rows)
    return Series(np.array(secs), np.array(steps, np.int64), np.array(values))
