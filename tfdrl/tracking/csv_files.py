"""A run as plain tables: points.csv, settings.csv and result.csv."""

from __future__ import annotations

import csv
import pathlib
from collections.abc import Iterable, Sequence

from tfdrl.errors import ConfigurationError, TfdrlError
from tfdrl.tracking.destinations import End, RunToTrack
from tfdrl.tracking.points import Point

POINTS, SETTINGS, RESULT = "points.csv", "settings.csv", "result.csv"


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
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            if not self._points.is_file():
                self._write(POINTS, [Point._fields])
        except OSError as error:
            raise ConfigurationError(f"{self.place} cannot be written: {error}") from None
        self._write(SETTINGS, [("name", "value"), *run.settings.items()])
        return run_id or POINTS

    def add(self, points: Sequence[Point]) -> None:
        try:
            with self._points.open("a", newline="") as file:
                csv.writer(file).writerows(points)
        except OSError as error:
            raise TfdrlError(f"{self._points} cannot be written: {error.strerror}") from None

    def missing(self, points: Sequence[Point]) -> list[Point]:
        """As a table has them; a row that was cut short is removed."""
        data = self._points.read_bytes()
        whole_bytes = data.rfind(b"\n") + 1
        with self._points.open("r+b") as file:
            file.truncate(whole_bytes)
        rows = set(map(tuple, csv.reader(data[:whole_bytes].decode().splitlines())))
        return [point for point in points if tuple(map(str, point)) not in rows]

    def close(self, end: End | None) -> None:
        if end is not None:
            self._write(RESULT, [("name", "value"), ("ended", end.reason), *end.result.items()])

    def _write(self, name: str, rows: Iterable[Sequence[object]]) -> None:
        with (self._directory / name).open("w", newline="") as file:
            csv.writer(file).writerows(rows)
