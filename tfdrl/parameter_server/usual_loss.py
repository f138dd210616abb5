"""The mean |loss| of what parameters have come from, which a rollback takes back to what it was."""

from __future__ import annotations

import numpy as np

#: It is known after so many updates.
WARM_UP_UPDATES = 200


class UsualLoss:
    """Sum of |loss| and number of updates, by the version that they led to.

    Args:
      version: at which the counting begins.
    """

    def __init__(self, version: int = 0):
        self._known = [(version, 0.0, 0.0)]  # version, sum of |loss|, updates; oldest first

    @property
    def is_known(self) -> bool:
        """Whether there were enough updates."""
        return self._known[-1][2] >= WARM_UP_UPDATES

    @property
    def mean(self) -> float:
        """0.0 before the first update."""
        _, total, updates = self._known[-1]
        return total / max(updates, 1.0)

    def add(self, version: int, total: float, updates: float, oldest: int) -> None:
        """Counts updates.

        Args:
          version: that the last of them led to.
          total: their sum of |loss|.
          updates: how many.
          oldest: version to which `go_back` may still go.
        """
        _, total_before, updates_before = self._known[-1]
        self._known.append((version, total_before + total, updates_before + updates))
        while len(self._known) > 2 and self._known[1][0] <= oldest:
            del self._known[0]

    def go_back(self, version: int, now: int) -> None:
        """Forgets the updates after a version, but for the warm-up: who sends them may be there.

        Args:
          version: of the snapshot; between two that are known, updates are taken as even.
          now: version from which the counting goes on; versions are never set back.
        """
        versions, totals, updates = zip(*self._known)
        warm = next((v for v, _, count in self._known if count >= WARM_UP_UPDATES), versions[-1])
        left = max(version, warm)
        total, count = (float(np.interp(left, versions, kept)) for kept in (totals, updates))
        older = [known for known in self._known if known[0] < version]
        self._known = [*older, (version, total, count), (now, total, count)]
