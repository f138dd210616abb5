"""When asynchronous training has gone wrong, and to which version to go back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from tfdrl.errors import DivergedError
from tfdrl.parameter_server.settings import ParameterServerSettings
from tfdrl.parameter_server.usual_loss import UsualLoss

#: A server has so many statuses' time to carry an order out: a new epoch. Then it may be lost.
_PATIENCE = 10


class Order(NamedTuple):
    """Go back to the newest snapshot that is not newer than `version`."""

    version: int
    reason: str


class Divergence:
    """Looks at the statuses of the first parameter server, about one a second.

    Args:
      settings: of the servers.

    Attributes:
      mean_loss: mean |loss| of the updates between the last two statuses; NaN before.
      rollbacks: orders given.
    """

    def __init__(self, settings: ParameterServerSettings):
        self._settings = settings
        self.mean_loss = math.nan
        self.rollbacks = 0
        self._before: Mapping[str, Any] | None = None
        self._usual = UsualLoss()
        self._bad_in_a_row = 0
        self._patience = 0
        self._version: int | None = None  # of the last order

    def add(self, status: Mapping[str, Any]) -> Order | None:
        """Takes a status; returns an order if training must be set back.

        Raises:
          DivergedError: it was set back `max_rollbacks` times already, or there is no snapshot.
        """
        before, self._before = self._before, status
        if before is None or status["epoch"] != before["epoch"]:
            self._begin_epoch(before, status)
            return None
        if self._patience:
            self._patience -= 1
            return None
        reason = self._non_finite(before, status) or self._exploding(before, status)
        return None if reason is None else self._order(status, reason)

    def _begin_epoch(self, before, status) -> None:
        self._bad_in_a_row = self._patience = 0
        version = status["version"]
        if before is None or status["rollbacks"] <= before["rollbacks"]:  # a start of the server
            self._usual = UsualLoss(version)
            return
        # Whoever ordered it; a snapshot of after `before` may be one of the new epoch.
        earlier = [v for v, _ in status["snapshots"] if v <= before["version"]]
        self._usual.go_back(max(earlier, default=before["version"]), version)

    def _non_finite(self, before, status) -> str | None:
        bad = status["verdicts"]["non_finite"] - before["verdicts"]["non_finite"]
        good = status["verdicts"]["accepted"] - before["verdicts"]["accepted"]
        self._bad_in_a_row = self._bad_in_a_row + bad if not good else 0
        limit = self._settings.rollback_nonfinite
        if limit is None or self._bad_in_a_row < limit:
            return None
        return f"{self._bad_in_a_row} gradients in a row were not finite"

    def _exploding(self, before, status) -> str | None:
        total, count = (new - old for new, old in zip(status["losses"], before["losses"]))
        if not count:
            return None
        self.mean_loss = total / count
        factor, usual = self._settings.rollback_loss_factor, self._usual.mean
        is_judged = factor is not None and self._usual.is_known
        if is_judged and not self.mean_loss <= factor * usual:
            return f"the mean |loss| is {self.mean_loss:.3g}, usual is {usual:.3g}"
        oldest = min((v for v, _ in status["snapshots"]), default=status["version"])
        self._usual.add(status["version"], total, count, oldest)
        return None

    def _order(self, status, reason: str) -> Order:
        # A snapshot of which the loss was already high is part of what went wrong.
        usual = self._usual.mean
        factor = self._settings.rollback_loss_factor or math.inf
        good = [v for v, loss in status["snapshots"] if not usual or loss <= factor * usual]
        if self.rollbacks >= self._settings.max_rollbacks or not good:
            why = (
                "there is no snapshot to go back to"
                if not good
                else (
                    f"parameter_server.max_rollbacks = {self._settings.max_rollbacks} are used up"
                )
            )
            raise DivergedError(
                f"training diverged: {reason}, and {why}; the last checkpoint is kept. Look at the "
                "learning rate, the gradient clipping and the rewards"
            )
        # The one it went back to last did not hold: an older one, if there is one.
        good = [v for v in good if v < self._version] or good if good[-1] == self._version else good
        self._version = good[-1]
        self.rollbacks += 1
        self._bad_in_a_row = 0
        self._patience = _PATIENCE
        return Order(good[-1], reason)
