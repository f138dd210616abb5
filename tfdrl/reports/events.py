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
CHECKSUM_BYTES = 4
HEAD_BYTES = _LENGTH.size + CHECKSUM_BYTES
#: Names of event files.
FILES = "events.out.tfevents.*"


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
    for path in sorted(directory.glob(FILES)):
        for _, record in records(_data(path)):
            try:
                scalars = scalars_of(record)
            except protobuf.DecodeError:
                break
            for secs, step, tag, value in scalars:
                found.setdefault(tag, []).append((secs, step, value))
    return {tag: _series(rows) for tag, rows in found.items()}


def records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Where each whole record of an event file ends, and what it holds.

    Args:
      data: of the file, from the beginning of a record.
    """
    begin = 0
    while begin + HEAD_BYTES <= len(data):
        end = begin + record_bytes(data, begin)
        if end > len(data):
            return
        yield end, data[begin + HEAD_BYTES : end - CHECKSUM_BYTES]
        begin = end


def record_bytes(data: bytes, begin: int = 0) -> int:
    """How long the record is whose first HEAD_BYTES are there."""
    (length,) = _LENGTH.unpack_from(data, begin)
    return HEAD_BYTES + length + CHECKSUM_BYTES


def scalars_of(record: bytes) -> list[tuple[float, int, str, float]]:
    """(Unix time, step, tag, value) of each scalar in a record.

    Raises DecodeError of Protocol Buffers if it is none of TensorBoard's.
    """
    event = event_pb2.Event.FromString(record)
    numbers = [(value.tag, _number(value)) for value in event.summary.value]
    return [(event.wall_time, event.step, tag, x) for tag, x in numbers if x is not None]


def _data(path: pathlib.Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


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
