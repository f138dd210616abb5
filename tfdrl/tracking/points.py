"""Scalars of a run's event files, read on from where the last look ended."""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from google.protobuf import message as protobuf
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

from tfdrl.errors import TfdrlError
from tfdrl.reports import events

_CHECKSUM = struct.Struct("<I")
#: Of event files in one look: some ten thousand points.
_LOOK_BYTES = 1 << 20


class Point(NamedTuple):
    """One number that a process wrote.

    process  such as "learner-0"
    tag      what it is, such as "loss/total"
    step     of the writer: learner steps, or frames of one actor
    secs     Unix time
    value    may be NaN or infinite
    """

    process: str
    tag: str
    step: int
    secs: float
    value: float

    @property
    def name(self) -> str:
        return f"{self.process}/{self.tag}"


#: How many bytes of each event file have been read, by its path below the events' directory.
Positions = Mapping[str, int]


class EventFiles:
    """The event files of a run.

    Args:
      directory: has a directory for each process, such as "learner-0".
      roles: whose processes are read; none: everybody's.
    """

    def __init__(self, directory: pathlib.Path, roles: Sequence[str] = ()):
        self._directory, self._roles = directory, frozenset(roles)

    def take(self, since: Positions) -> tuple[list[Point], dict[str, int]]:
        """Some of the points after `since`, those of a process in its order; where they end.

        The same positions: there is nothing new. A record whose checksum is not right yet is being
        written, and is left for later, and what comes after it in its file.
        """
        points: list[Point] = []
        reached, room_bytes = dict(since), _LOOK_BYTES
        for name, path in self._files():
            begin = since.get(name, 0)
            found, length = _points(path, _read(path, begin, room_bytes))
            points += found
            if length:
                reached[name] = begin + length
            room_bytes -= length
            if room_bytes <= 0:
                break
        return points, reached

    def between(self, since: Positions, until: Positions) -> list[Point]:
        """What one `take` gave."""
        points: list[Point] = []
        for name, end in until.items():
            begin, path = since.get(name, 0), self._directory / name
            points += _points(path, _read(path, begin, end - begin)[: end - begin])[0]
        return points

    def left(self, positions: Positions) -> dict[str, int]:
        """Bytes after these positions, by file: of an ended run, what nobody finished."""
        sizes = {name: path.stat().st_size for name, path in self._files()}
        left = {name: size - positions.get(name, 0) for name, size in sizes.items()}
        return {name: size for name, size in left.items() if size > 0}

    def _files(self) -> Iterator[tuple[str, pathlib.Path]]:
        for path in sorted(self._directory.glob(f"*/{events.FILES}")):
            role = path.parent.name.rpartition("-")[0]
            if not self._roles or role in self._roles:
                yield f"{path.parent.name}/{path.name}", path


def _points(path: pathlib.Path, data: bytes) -> tuple[list[Point], int]:
    """The points of the whole records that `data` begins with, and their length in bytes."""
    points: list[Point] = []
    whole_bytes = 0
    for end, record in events.records(data):
        (checksum,) = _CHECKSUM.unpack_from(data, end - events.CHECKSUM_BYTES)
        if checksum != masked_crc32c(record):
            break
        try:
            scalars = events.scalars_of(record)
        except protobuf.DecodeError:
            raise TfdrlError(f"{path} holds something else than TensorBoard's events") from None
        process = path.parent.name
        points += [Point(process, tag, step, secs, x) for secs, step, tag, x in scalars]
        whole_bytes = end
    return points, whole_bytes


def _read(path: pathlib.Path, begin: int, most: int) -> bytes:
    """At most so many bytes; all there are, if not even one record fits into these."""
    try:
        with path.open("rb") as file:
            file.seek(begin)
            data = file.read(most)
            is_short = len(data) == most >= events.HEAD_BYTES and events.record_bytes(data) > most
            return data + file.read() if is_short else data
    except OSError as error:
        raise TfdrlError(f"{path} cannot be read: {error.strerror}") from None
