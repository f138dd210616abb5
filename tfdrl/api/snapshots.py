"""How a training stands: what `on_progress` is given, once a second."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from tfdrl.launch.status import RunStatus


class Snapshot(NamedTuple):
    """How a training stands.

    Attributes:
      elapsed_secs: since this start.
      frames: environment frames, summed over the actors; 0 until the learner has answered.
      learner_steps: gradient steps.
      frames_per_second, learner_steps_per_second: None while unknown.
      mean_return: of the last evaluation; None before the first.
      best_return: of the best evaluation since this start; None before the first.
      metrics: by name, such as "learner/loss"; of several processes, their mean. Those that are
        not finite are left out.
    """

    elapsed_secs: float
    frames: int = 0
    learner_steps: int = 0
    frames_per_second: float | None = None
    learner_steps_per_second: float | None = None
    mean_return: float | None = None
    best_return: float | None = None
    metrics: Mapping[str, float] = {}


def of(status: RunStatus, elapsed_secs: float) -> Snapshot:
    """That of what a launcher knows."""
    known = status.status
    if known is None:
        return Snapshot(elapsed_secs)
    names = {*known.metrics, *(name for role in known.roles for name in role.metrics)}
    values = {name: status.metric(name) for name in sorted(names)}
    return Snapshot(
        elapsed_secs,
        known.frames,
        known.learner_step,
        status.frames_per_second,
        status.steps_per_second,
        known.evaluation.mean if known.evaluation else None,
        status.best.mean if status.best else None,
        {name: value for name, value in values.items() if _is_finite(value)},
    )


def _is_finite(value: Any) -> bool:
    return value is not None and math.isfinite(value)
