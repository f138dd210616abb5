"""Notices what nobody of the run has done to a replay: Reverb's server obeys whoever reaches it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class _Seen(NamedTuple):
    size: int
    inserts: int


class TableWatch:
    """Compares what a replay's tables say with what they said before.

    This run neither resets a table nor deletes an item: items leave by the sampling of a queue, and
    by newer ones that take their place. So inserts never count down, nor does the size of a table
    whose items may be sampled without end.
    """

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def look(self, tables: Mapping[str, Any]) -> list[str]:
        """Takes Reverb's TableInfo by name; returns a sentence for each change of somebody else."""
        found = []
        for name, info in tables.items():
            now = _Seen(info.current_size, info.rate_limiter_info.insert_stats.completed)
            before, self._seen[name] = self._seen.get(name, now), now
            if now.inserts < before.inserts:
                found.append(
                    f"somebody has RESET the replay table {name!r}: {before.size:,} items are now "
                    f"{now.size:,}"
                )
            elif not info.max_times_sampled > 0 and now.size < before.size:
                found.append(
                    f"somebody has DELETED items of the replay table {name!r}: {before.size:,} "
                    f"are now {now.size:,}"
                )
        return found
