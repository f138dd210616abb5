"""Bounds how fast the counts of one process grow: a faulty one must not count for all others."""

from __future__ import annotations

import time
from typing import NamedTuple

from tfdrl.rpc.tensors import MessageError

#: Frames, or items, that no process reaches.
MAX_PER_SECOND = 10_000_000
#: What a process may have done while nobody counted: a learner that is away is no fault of it.
MAX_AT_ONCE = 100_000_000


class Counts(NamedTuple):
    """What a process has done, or several have: environment frames, and items of replays."""

    frames: int = 0
    items_inserted: int = 0
    items_sampled: int = 0

    def plus(self, other: Counts) -> Counts:
        """The sum of both."""
        return Counts(*(a + b for a, b in zip(self, other)))

    def beyond(self, other: Counts) -> Counts:
        """How much more than the other it is, never less than nothing."""
        return Counts(*(max(0, a - b) for a, b in zip(self, other)))

    def at_least(self, other: Counts) -> Counts:
        """The larger of each."""
        return Counts(*map(max, self, other))


class GrowthLimit:
    """Lets each of a process's counts grow by `MAX_AT_ONCE`, and by `MAX_PER_SECOND` from then on.

    A token bucket for each count.
    """

    def __init__(self) -> None:
        self._room = Counts(*[MAX_AT_ONCE] * 3)
        self._since_secs = time.monotonic()

    def take(self, growth: Counts) -> None:
        """Takes what the counts have grown by. Raises MessageError, and takes nothing."""
        now_secs = time.monotonic()
        filled = int((now_secs - self._since_secs) * MAX_PER_SECOND)
        room = Counts(*(min(MAX_AT_ONCE, count + filled) for count in self._room))
        for name, grown, most in zip(Counts._fields, growth, room):
            if grown > most:
                raise MessageError(
                    f"{name} grew by {grown:,} since the last report; no process makes more than "
                    f"{MAX_PER_SECOND:,} a second"
                )
        self._room = Counts(*(most - grown for grown, most in zip(growth, room)))
        self._since_secs = now_secs


def most_after(secs: float) -> float:
    """What no count of a process can have passed in so many seconds."""
    return MAX_AT_ONCE + MAX_PER_SECOND * secs
