"""What an earlier start of a run left: it says nothing of the one that goes on."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Sequence

SUMMARY, RESULT = "summary.txt", "result.json"
#: How a start ended.
END = (SUMMARY, RESULT)


def aside(path: pathlib.Path, number: int) -> pathlib.Path:
    """Where it may be kept: path.1, path.2, ..."""
    return path.with_name(f"{path.name}.{number}")


def free_number(root_dir: pathlib.Path, names: Sequence[str] = END) -> int:
    """The first that none of these files has: those of one end share theirs."""
    return next(
        number
        for number in itertools.count(1)
        if not any(aside(root_dir / name, number).exists() for name in names)
    )


def put_aside(path: pathlib.Path, number: int) -> None:
    """Renames it to `aside(path, number)`, if it is there. Raises OSError if it cannot be."""
    if path.exists():
        path.rename(aside(path, number))
