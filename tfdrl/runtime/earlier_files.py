"""What an earlier start of a run left: it says nothing of the one that goes on."""

from __future__ import annotations

import pathlib


def aside(path: pathlib.Path) -> pathlib.Path:
    """Where it may be kept: the first of path.1, path.2, ... that is free."""
    number = 1
    while (kept := path.with_name(f"{path.name}.{number}")).exists():
        number += 1
    return kept


def put_aside(path: pathlib.Path) -> None:
    """Renames it to `aside(path)`, if it is there. Raises OSError if that cannot be done."""
    if path.exists():
        path.rename(aside(path))
