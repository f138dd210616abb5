"""How many gradient steps a process that acts and learns owes to the steps it has made."""

from __future__ import annotations


class UpdatePace:
    """One update for every `period_steps` agent steps after the first `start_steps`.

    Args:
      start_steps: agent steps before the first update is counted.
      period_steps: agent steps for each update (Mnih 2015: 4).

    Attributes:
      updates: handed out so far.
    """

    def __init__(self, start_steps: int, period_steps: int):
        self.start_steps, self._period_steps = start_steps, period_steps
        self.updates = 0

    def due(self, steps: int) -> int:
        """Updates to do now, after `steps` agent steps in all."""
        due = max(steps - self.start_steps, 0) // self._period_steps - self.updates
        self.updates += max(due, 0)
        return max(due, 0)
