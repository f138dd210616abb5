"""The runs of a directory: what state each is in, how good it was, which settings differ."""

from __future__ import annotations

import os
import pathlib
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tfdrl import configuration
from tfdrl.errors import ConfigurationError
from tfdrl.launch import curves, run_directory, summary
from tfdrl.runtime import locks

_ARCHITECTURE = "experiment.architecture"


class RunLine(NamedTuple):
    """One run.

    root_dir    its directory
    started     seconds since the epoch: of its first start
    state       "runs", or why its last start ended, in words
    best        mean return of its best evaluation; None without one
    frames      environment frames at its last evaluation
    settings    what its gin files bind
    """

    root_dir: pathlib.Path
    started: float
    state: str
    best: float | None
    frames: float
    settings: Mapping[str, str]


def find(directory: str | os.PathLike) -> list[RunLine]:
    """The runs in a directory and below it, oldest first.

    Raises ConfigurationError if there is no such directory.
    """
    if not pathlib.Path(directory).is_dir():
        raise ConfigurationError(f"there is no directory {directory}; name one that has runs")
    return sorted(map(_line, _directories(directory)), key=lambda line: line.started)


def _directories(top: str | os.PathLike) -> Iterator[pathlib.Path]:
    for path, below, files in os.walk(top):
        if run_directory.CONFIG in files:
            below.clear()  # a run has no run inside
            yield pathlib.Path(path)


def _line(root_dir: pathlib.Path) -> RunLine:
    config = root_dir / run_directory.CONFIG
    rows = [row for row in curves.read(root_dir) if {"mean", "frames"} <= row.keys()]
    means = [row["mean"] for row in rows if row["mean"] == row["mean"]]  # not NaN
    return RunLine(
        root_dir,
        config.stat().st_mtime,
        _state(root_dir),
        max(means, default=None),
        max((row["frames"] for row in rows), default=0.0),
        configuration.settings(config.read_text("utf-8", errors="replace")),
    )


def _state(root_dir: pathlib.Path) -> str:
    if locks.is_held(root_dir, "launcher"):
        return "runs"
    ended = summary.read(root_dir).get("ended", "")
    return ended.replace(" (exit code 0)", "") or "no end is written"


def page(lines: Sequence[RunLine]) -> list[str]:
    """A table of the runs of each architecture, with the settings that differ among them."""
    groups: dict[str, list[RunLine]] = {}
    for line in lines:
        groups.setdefault(line.settings.get(_ARCHITECTURE, "?"), []).append(line)
    found = []
    for architecture, group in groups.items():
        varying = _varying([line.settings for line in group])
        found += [f"{architecture}:", *_table(group, varying), ""]
    return found[:-1]


def _varying(settings: Sequence[Mapping[str, str]]) -> list[str]:
    names = sorted({name for one in settings for name in one})
    return [name for name in names if len({one.get(name) for one in settings}) > 1]


def _table(group: Sequence[RunLine], varying: Sequence[str]) -> list[str]:
    rows = [["run", "started", "best return", "frames", *varying, "state"]]
    for line in group:
        best = "-" if line.best is None else f"{line.best:,.1f}"
        started = time.strftime("%Y-%m-%d %H:%M", time.localtime(line.started))
        values = [line.settings.get(name, "-") for name in varying]
        rows.append([str(line.root_dir), started, best, f"{line.frames:,.0f}", *values, line.state])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return ["  ".join(f"{cell:<{n}}" for cell, n in zip(row, widths)).rstrip() for row in rows]
