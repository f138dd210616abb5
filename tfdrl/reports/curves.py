"""The curves of a page: returns of all groups, and what the roles did over time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tfdrl.reports import measured, plot, statistics, words
from tfdrl.reports.groups import Group
from tfdrl.reports.plot import Curve
from tfdrl.reports.run import Run

#: Without seeds to compare: two standard errors over the episodes of an evaluation.
_ERRORS = 2.0


def returns(groups: Sequence[Group], column: str) -> list[Curve]:
    """Evaluation returns against a column of evaluations.csv: one curve of each group.

    The band is the 95 % interval of the mean over seeds; of a single run, two standard errors of
    the mean over episodes.
    """
    found = []
    for group in groups:
        known = [run for run in group.runs if run.evaluations]
        if len(known) == 1:
            x, y, error = (_column(known[0], c) for c in (column, "mean", "standard_error"))
            found.append(Curve(group.label, x, y, y - _ERRORS * error, y + _ERRORS * error))
            continue
        curves = [(_column(run, column), _column(run, "mean")) for run in known]
        found.append(Curve(group.label, *statistics.mean_curve(curves)))
    return found


def over_time(groups: Sequence[Group], tag: str) -> list[Curve]:
    """A scalar of the chief (or of learners) against seconds of the run that is shown."""
    found = []
    for group in groups:
        run = group.runs[group.shown]
        series = [*run.series(tag), *(run.series(tag, "learner") if run.chief != "learner" else [])]
        x, y = _against_secs(run, series[0]) if series else (np.zeros(0), np.zeros(0))
        found.append(plot.line(group.label, x, y))
    return found


def learner_steps(groups: Sequence[Group]) -> list[Curve]:
    """Learner steps, or updates of the parameter servers, against seconds."""
    found = []
    for group in groups:
        run = group.runs[group.shown]
        frames = run.of_chief("environment/frames")
        steps = frames._replace(values=frames.steps.astype(float))
        found.append(plot.line(group.label, *_against_secs(run, steps)))
    return found


def waiting(groups: Sequence[Group]) -> list[Curve]:
    """Shares of time that roles of the shown runs wait, in percent: the first process of each."""
    found = []
    for group in groups:
        run = group.runs[group.shown]
        for role in run.program.roles:
            processes = measured.waiting(run, role.name)
            if processes:
                x, y = _against_secs(run, processes[0][0])
                name = f"{role.name}" if len(groups) == 1 else f"{group.label}: {role.name}"
                found.append(plot.line(name, x, 100 * y))
    return found


def charts(groups: Sequence[Group]) -> list[tuple[str, str]]:
    """(title, HTML) of each chart that has something to show."""
    target = groups[0].runs[0].facts.solved_return
    of_return = {"y_label": "mean return of an evaluation", "target": target}
    against_frames = {"x_label": "environment frames", **of_return}
    of_time = {"x_label": "training time", "x_words": words.duration}
    against_time = {**of_time, **of_return}
    lag, age = (over_time(groups, tag) for tag in ("learner/policy_lag", "gradients/age"))
    drawn = [
        ("Return against environment frames", returns(groups, "frames"), against_frames),
        ("Return against training time", returns(groups, "seconds"), against_time),
        ("Learner steps over time", learner_steps(groups), _rising(of_time, "learner steps")),
        ("Policy lag over time", lag, _rising(of_time, "learner steps behind")),
        ("Age of gradients over time", age, _rising(of_time, "updates behind")),
        ("Waiting over time", waiting(groups), _rising(of_time, "% of the time")),
    ]
    found = [(title, plot.chart(c, **axes), plot.legend(c)) for title, c, axes in drawn]
    return [(title, svg + keys) for title, svg, keys in found if svg]


def _rising(of_time: dict, y_label: str) -> dict:
    """Axes of what cannot be negative."""
    return {**of_time, "y_label": y_label, "from_zero": True}


def _column(run: Run, name: str) -> np.ndarray:
    return np.array([row[name] for row in run.evaluations])


def _against_secs(run: Run, series) -> tuple[np.ndarray, np.ndarray]:
    """Of the training: seconds since its first learner step or frame."""
    begin, _ = run.window
    begin = begin or (series.secs[0] if len(series.secs) else 0.0)
    within = series.secs >= begin
    return series.secs[within] - begin, series.values[within]
