"""Runs that differ in their seed alone, as one: what is compared."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tfdrl.reports import measured, statistics
from tfdrl.reports.findings import first_reached
from tfdrl.reports.measured import Numbers
from tfdrl.reports.run import Run, task_of
from tfdrl.reports.statistics import Estimate

#: The part of a run's frames whose evaluations are its final return.
_LAST_PART = 0.75


class Group(NamedTuple):
    """Runs of one setting, one for each seed.

    label    of the setting
    runs     by seed
    numbers  of each
    """

    label: str
    runs: list[Run]
    numbers: list[Numbers]

    @property
    def task(self) -> str:
        """The environment in words."""
        return task_of(self.runs[0].config)

    @property
    def shown(self) -> int:
        """The index of the run whose figure stands for all: of the median frame rate."""
        rates = [numbers.frames_rate or 0.0 for numbers in self.numbers]
        return int(np.argsort(rates)[len(rates) // 2])

    @property
    def finals(self) -> list[float]:
        """The final return of each run that has evaluations."""
        found = [final_return(run) for run in self.runs]
        return [value for value in found if not math.isnan(value)]

    def final(self, statistic=statistics.mean) -> Estimate | None:
        """Of the final returns; None without any."""
        finals = self.finals
        return statistics.estimate([np.array(finals)], statistic) if finals else None

    def to_target(self, column: str) -> tuple[list[float], int]:
        """`column` of evaluations.csv where each run first reached its target; how many did."""
        rows = [first_reached(run, run.facts.solved_return) for run in self.runs]
        found = [row[column] for row in rows if row is not None]
        return found, len(found)

    def mean(self, name: str) -> float | None:
        """Of one of the numbers, over the runs in which it was measured."""
        values = [getattr(numbers, name) for numbers in self.numbers]
        known = [value for value in values if value is not None]
        return float(np.mean(known)) if known else None


def final_return(run: Run) -> float:
    """The mean of the evaluations of the last quarter of the frames; nan without any."""
    rows = run.evaluations
    if not rows:
        return math.nan
    least = _LAST_PART * rows[-1]["frames"]
    return float(np.mean([row["mean"] for row in rows if row["frames"] >= least]))


def grouped(runs: Sequence[Run], labels: Sequence[str]) -> list[Group]:
    """Groups of the runs that have the same label, in the order of the first of each."""
    found: dict[str, list[Run]] = {}
    for run, label in zip(runs, labels):
        found.setdefault(label, []).append(run)
    return [Group(label, mine, [measured.of(run) for run in mine]) for label, mine in found.items()]
