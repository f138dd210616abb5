"""What an earlier start of a run left: it says nothing of the one that goes on."""

from __future__ import annotations

import itertools
import pathlib

SUMMARY, RESULT = "summary.txt", "result.json"
#: How a start ended.
END = (SUMMARY, RESULT)


def aside(path: pathlib.Path, number: int | None = None) -> pathlib.Path:
    """Where it may be kept: path.1, path.2, ...; without a number the first that is free."""
    if number is not None:
        return path.with_name(f"{path.name}.{number}")
    return next(kept for n in itertools.count(1) if not (kept := aside(path, n)).exists())


def free_number(root_dir: pathlib.Path) -> int:
    """The first that no file of an earlier end has: those of one end share theirs."""
    for number in itertools.count(1):
        if not any(aside(root_dir / name, number).exists() for name in END):
            return number


def put_aside(path: pathlib.Path, number: int) -> None:
    """Renames it to `aside(path, number)`, if it is there. Raises OSError if it cannot be."""
    if path.exists():
        path.rename(aside(path, number))
