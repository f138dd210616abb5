"""How long this start of a run has trained: what `experiment.max_minutes` limits."""

from __future__ import annotations

import time
from typing import Any


class TrainingClock:
    """Runs from the first progress of this start on; waiting for the other roles is no training.

    Args:
      max_minutes: of training; None for no limit.
      progress: at the start, such as learner steps and frames; a run that is continued has some.
    """

    def __init__(self, max_minutes: float | None, progress: Any):
        self._max_minutes, self._before = max_minutes, progress
        self._begin_secs: float | None = None

    def is_over(self, progress: Any) -> bool:
        """Whether the time is up, with the progress as it is now; call it often."""
        if self._max_minutes is None:
            return False
        now_secs = time.monotonic()
        if self._begin_secs is None and progress != self._before:
            self._begin_secs = now_secs
        begin_secs = now_secs if self._begin_secs is None else self._begin_secs
        return now_secs - begin_secs >= 60 * self._max_minutes
