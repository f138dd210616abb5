"""What tells a launcher to stop: signals, which are counted."""

from __future__ import annotations

import signal
from collections.abc import Sequence

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Counts SIGINT, SIGTERM and SIGHUP instead of dying of them.

    One that was ignored when this process was started (by nohup, say) stays ignored.

    Args:
      patient: signals that may come again, and then say nothing new: they count as the first only.

    Attributes:
      count: how many have come.
      first: the number of the first; 0 before it.
    """

    def __init__(self, patient: Sequence[int] = ()) -> None:
        self.count, self.first, self._patient = 0, 0, tuple(patient)

    def _receive(self, number: int, *unused: object) -> None:
        self.first = self.first or number
        self.count += not (self.count and number in self._patient)

    def __enter__(self) -> Interrupts:
        signals = {*_SIGNALS, *self._patient}
        heeded = [n for n in signals if signal.getsignal(n) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._receive) for number in heeded}
        return self

    def __exit__(self, *unused: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
