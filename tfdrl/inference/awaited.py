"""Whose steps an inference batch may wait for."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Protocol

_COUNT_PERIOD_SECS = 0.05


class Environments(Protocol):
    """Those of one actor."""

    rows: int

    def is_awaited(self, now_secs: float) -> bool:
        """Whether a step of them may come any moment."""


class AwaitedEnvironments:
    """Counts the environments that may show a step any moment: no actor is slow, or waits for room.

    Who plays sets `played`; batches ask for the count. It is taken anew 20 times a second.

    Attributes:
      played: what actors' streams play, or have played.
    """

    def __init__(self):
        self.played: Sequence[Environments] = ()
        self._count, self._count_again_secs = 0, 0.0

    def count(self) -> int:
        """How many, as of a twentieth of a second ago."""
        now_secs = time.monotonic()
        if now_secs >= self._count_again_secs:
            self._count_again_secs = now_secs + _COUNT_PERIOD_SECS
            self._count = sum(some.rows for some in self.played if some.is_awaited(now_secs))
        return self._count

    def count_again(self) -> None:
        """A stream has come, gone, or has to wait: the next count is new."""
        self._count_again_secs = 0.0
