"""What a learner's newest batch and step showed, for the panel and TensorBoard."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tfdrl.experience.transitions import age_secs
from tfdrl.experience.unroll_batches import UnrollBatch
from tfdrl.learning.trainer import Trainer
from tfdrl.replay.client import ReplayInfo
from tfdrl.replay.reading import Samples
from tfdrl.replay.transition_dataset import PriorityWriter, SampledBatch
from tfdrl.rpc import clocks
from tfdrl.runtime.metrics import WaitingClock
from tfdrl.types import Unrolls


class LearningMetrics:
    """Adds up what a learner's batches show until somebody asks.

    Args:
      replay: asked for the table's size.
      samples, priorities, trainer: whose counters are shown.
    """

    def __init__(self, replay: ReplayInfo, samples: Samples, priorities: PriorityWriter, trainer):
        self._replay, self._samples = replay, samples
        self._priorities, self._trainer = priorities, trainer
        self._last = None

    def add(self, losses: np.ndarray, batch: SampledBatch, step: int) -> None:
        """Remembers the newest batch; the arithmetic waits until `take`."""
        self._last = (losses, batch, step)

    def take(self) -> dict[str, float]:
        """Metrics of the newest batch and the shares of time since the last call."""
        values = {
            "learner/waiting_share": self._samples.waiting.take_share(),
            "learner/bad_steps": self._trainer.bad_steps,
            "learner/bad_priorities": self._priorities.bad,
            "learner/dropped_priority_updates": self._priorities.dropped,
        }
        table = self._replay.table()
        if table is not None:
            values["replay/size"] = table.current_size
            values["replay/min_size"] = table.rate_limiter_info.min_size_to_sample
        if self._last is not None:
            losses, batch, step = self._last
            values.update({f"learner/{k}": v for k, v in self._trainer.scalars.items()})
            values["learner/loss"] = float(losses.mean())
            values["learner/policy_lag"] = float(step - batch.version.numpy().mean())
            values["learner/sample_age_secs"] = float(age_secs(batch.time_secs.numpy()).mean())
        return values


class UnrollMetrics:
    """What a learner's newest batch and step showed, for the progress line and TensorBoard.

    Args:
      queue_size: `queue_size() -> int`, or None while it is not known.
      waiting: the learner's time without a batch.
      trainer: whose counters are shown.
      fresh: how many unrolls of a batch are fresh: lag and age are theirs alone.
    """

    def __init__(
        self,
        queue_size: Callable[[], int | None],
        waiting: WaitingClock,
        trainer: Trainer,
        fresh: int,
    ):
        self._queue_size, self._waiting, self._trainer = queue_size, waiting, trainer
        self._fresh = fresh
        self._last = None

    def add(self, loss: float, info: dict, batch: UnrollBatch | Unrolls, step: int) -> None:
        """Remembers the newest step; the arithmetic waits until `take`."""
        self._last = (loss, info, batch, step)

    def take(self) -> dict[str, float]:
        """Metrics of the newest batch and the shares of time since the last call."""
        values = {
            "learner/waiting_share": self._waiting.take_share(),
            "learner/bad_steps": self._trainer.bad_steps,
        }
        size = self._queue_size()
        if size is not None:
            values["learner/queue"] = size
        if self._last is None:
            return values
        loss, info, batch, step = self._last
        lag = step - 1 - np.asarray(batch.version)  # of the parameters that this step started from
        values["learner/loss"] = loss
        values["learner/policy_lag"] = float(lag[: self._fresh].mean())
        old_secs = clocks.unix_secs() - np.asarray(batch.time_secs)
        values["learner/sample_age_secs"] = float(np.maximum(old_secs[: self._fresh], 0).mean())
        if len(lag) > self._fresh:
            values["learner/replayed_policy_lag"] = float(lag[self._fresh :].mean())
        values.update({f"learner/{name}": float(value) for name, value in info.items()})
        return values
