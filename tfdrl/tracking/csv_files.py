"""A run as plain tables: points.csv, settings.csv and result.csv."""

from __future__ import annotations

import contextlib
import csv
import io
import pathlib
from collections.abc import Iterable, Iterator, Sequence

from tfdrl.errors import ConfigurationError, TfdrlError
from tfdrl.tracking.destinations import End, RunToTrack
from tfdrl.tracking.points import Point

POINTS, SETTINGS, RESULT = "points.csv", "settings.csv", "result.csv"
_TEXT = {"encoding": "utf-8", "newline": ""}
_ROW_END = b"\r\n"  # csv.writer's


class CsvFiles:
    """A directory of tables; where `Destination` says what its methods do.

    Args:
      directory: is made if need be.
    """

    kind = "csv"

    def __init__(self, directory: pathlib.Path):
        self.place, self._directory = str(directory), directory
        self._points = directory / POINTS

    def open(self, run_id: str, run: RunToTrack, points: int) -> str:
        if run_id and not self._points.is_file():
            raise ConfigurationError(
                f"{self._points} is gone, where {points:,} points were written before; "
                "choose another --output to write the run anew"
            )
        with _translated_errors(self._directory, ConfigurationError):
            self._directory.mkdir(parents=True, exist_ok=True)
        if not self._points.is_file():
            self._write(POINTS, [Point._fields])
        self._write(SETTINGS, [("name", "value"), *run.settings.items()])
        return run_id or POINTS

    def add(self, points: Sequence[Point]) -> None:
        with _translated_errors(self._points), self._points.open("a", **_TEXT) as file:
            csv.writer(file).writerows(points)

    def missing(self, points: Sequence[Point]) -> list[Point]:
        """As a table has them; a row that was cut short is removed."""
        with _translated_errors(self._points), self._points.open("r+b") as file:
            data = file.read()
            whole_bytes = len(data) - len(data.rpartition(_ROW_END)[2])
            file.truncate(whole_bytes)
        text = io.StringIO(data[:whole_bytes].decode(), newline="")  # tags may have line ends
        rows = set(map(tuple, csv.reader(text)))
        return [point for point in points if tuple(map(str, point)) not in rows]

    def close(self, end: End | None) -> None:
        if end is not None:
            self._write(RESULT, [("name", "value"), ("ended", end.reason), *end.result.items()])

    def _write(self, name: str, rows: Iterable[Sequence[object]]) -> None:
        path = self._directory / name
        with _translated_errors(path), path.open("w", **_TEXT) as file:
            csv.writer(file).writerows(rows)


@contextlib.contextmanager
def _translated_errors(path: pathlib.Path, kind: type[TfdrlError] = TfdrlError) -> Iterator[None]:
    """Files' errors as ours: a disk that is full, a directory that is read-only."""
    try:
        yield
    except OSError as error:
        raise kind(f"{path} cannot be written: {error.strerror}") from None
