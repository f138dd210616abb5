"""How far a run is on its way to each of what may end it."""

from __future__ import annotations

from typing import NamedTuple

from tfdrl.experiment import Experiment
from tfdrl.launch.status import RunStatus

_BAR_CHARACTERS = 20


class Goal(NamedTuple):
    """One of the ends: its setting's name, the share of the way done (0 to 1), and in words."""

    name: str
    share: float
    words: str


def goals(experiment: Experiment, snapshot: RunStatus, elapsed_secs: float) -> list[Goal]:
    """Those that the experiment sets, as far as they are known.

    Args:
      experiment: whose `solved_return` and `max_...` count.
      snapshot: of the learner, which has answered.
      elapsed_secs: since the learner's first answer.
    """
    found = []
    target, best, first = experiment.solved_return, snapshot.best, snapshot.first
    if target is not None and best is not None and first is not None:
        way = target - first.mean  # from where this start's first evaluation stood
        share = 1.0 if best.mean >= target else max(0.0, (best.mean - first.mean) / way)
        found.append(Goal("solved_return", share, f"best {best.mean:,.1f} of {target:,.1f}"))
    status = snapshot.status
    for name, done, limit in (
        ("max_frames", status.frames, experiment.max_frames),
        ("max_learner_steps", status.learner_step, experiment.max_learner_steps),
        ("max_minutes", elapsed_secs / 60, experiment.max_minutes),
    ):
        if limit is not None:
            form = "{:,.1f} of {:,g}" if name == "max_minutes" else "{:,} of {:,}"
            found.append(Goal(name, min(done / limit, 1.0), form.format(done, limit)))
    return found


def bar(share: float) -> str:
    """A share between 0 and 1 as a bar, in characters."""
    full = int(share * _BAR_CHARACTERS + 0.5)
    return f"{'█' * full}{'░' * (_BAR_CHARACTERS - full)} {100 * share:.0f} %"
