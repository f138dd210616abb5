"""Artificial stragglers, to see what they do to asynchronous training."""

from __future__ import annotations

import time

from tfdrl.topology import Context

#: The time since the last gradient may hold a server's restart, which is no work of the straggler.
_MAX_WAIT_SECS = 10.0


class Straggling:
    """Makes the last `slowed_workers` processes of a role take `slowdown` times as long.

    Args:
      slowed_workers, slowdown: as above. A wait takes 10 s at the most.
      context: of the role.
    """

    def __init__(self, slowed_workers: int, slowdown: float, context: Context):
        is_slow = context.task >= context.replicas - slowed_workers
        self._factor = slowdown - 1.0 if is_slow else 0.0
        self._stop = context.stop
        self._since_secs: float | None = None  # before the first gradient nothing is known

    def wait(self) -> None:
        """Before each gradient is computed; waits in proportion to the work since the last."""
        if self._factor and self._since_secs is not None:
            wait_secs = self._factor * (time.monotonic() - self._since_secs)
            self._stop.wait(min(wait_secs, _MAX_WAIT_SECS))
        self._since_secs = time.monotonic()
