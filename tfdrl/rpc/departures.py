"""Who of a run has been told to stop, and whether everybody has left."""

from __future__ import annotations

import collections
import time
from collections.abc import Iterable

from tfdrl.rpc.run_messages import RoleStatus

#: Roles and tasks that are waited for at the end; bounds what one sender can make us keep.
_MAX_JOINED = 1 << 14


class Departures:
    """Remembers who came and who was told to stop. Not thread-safe: its owner holds a lock."""

    def __init__(self) -> None:
        self._told: collections.Counter[tuple[str, int]] = collections.Counter()
        self._joined: dict[tuple[str, int], float] = {}

    def came(self, role: str, task: int) -> None:
        """A process has joined."""
        if len(self._joined) < _MAX_JOINED:
            self._joined[role, task] = time.monotonic()

    def was_told(self, role: str, task: int) -> None:
        """A report of this process was answered with stop."""
        self._told[role, task] += 1

    def is_everybody(self, reported: Iterable[RoleStatus], recent_secs: float) -> bool:
        """Whether every role that came lately was told to stop and has reported once more.

        Args:
          reported: the last reports.
          recent_secs: a role that has been silent for longer has left in another way.
        """
        there = {(r.role, r.task) for r in reported if r.seconds_since_report < recent_secs}
        since_secs = time.monotonic() - recent_secs
        there |= {role for role, secs in self._joined.items() if secs > since_secs}
        return all(self._told[role] > 1 for role in there)
