"""The target networks of several workers, which follow the global parameters in step."""

from __future__ import annotations


class TargetNetwork:
    """theta^- <- theta every N global steps, whoever made them (Nair 2015, section 4).

    Args:
      agent: its `initialize()` copies the network to its target, if it has one.
      period_steps: N, in updates or agent steps, as `update` is given them.
    """

    def __init__(self, agent, period_steps: int):
        self._agent, self._period_steps = agent, period_steps
        self._copied: tuple[int, int] | None = None

    def update(self, steps: int, epoch: int) -> None:
        """After each pull: copies if a period has begun since the last copy.

        Args:
          steps: global steps of the parameters that the agent has.
          epoch: another one means that they were set back: the target may be of the discarded line.
        """
        period = (steps // self._period_steps, epoch)
        if period != self._copied:
            self._copied = period
            self._agent.initialize()
