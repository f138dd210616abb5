"""What roles say to their user: lines of their logs that the launcher shows on the console."""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Iterable

from tfdrl.errors import NOTICE

_MAX_BYTES = 1 << 16  # of one log at a time


class Notices:
    """Follows logs from where they end now.

    Args:
      logs: by the role's name in messages; those that do not exist yet are read from their start.
    """

    def __init__(self, logs: Iterable[tuple[str, pathlib.Path]]):
        self._logs = list(logs)
        self._read_bytes = {path: _size_bytes(path) for _, path in self._logs}

    def take(self) -> list[str]:
        """The notices since the last call, each with its role's name."""
        found = []
        for name, path in self._logs:
            found += [f"{name}: {text}" for text in self._of(path)]
        return found

    def _of(self, path: pathlib.Path) -> list[str]:
        if _size_bytes(path) <= self._read_bytes[path]:
            return []
        with contextlib.suppress(OSError), path.open("rb") as file:
            file.seek(self._read_bytes[path])
            data = file.read(_MAX_BYTES)
            whole = data.rfind(b"\n") + 1 or len(data) // _MAX_BYTES * _MAX_BYTES
            self._read_bytes[path] += whole
            lines = data[:whole].decode(errors="replace").splitlines()
            return [line.partition(NOTICE)[2].strip() for line in lines if NOTICE in line]
        return []


def _size_bytes(path: pathlib.Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
