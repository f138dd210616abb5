"""From the evaluations of many runs to a table: mean and standard error over the seeds."""

from __future__ import annotations

import csv
import math
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tfdrl.launch import curves

#: The final return is the mean of the evaluations in this last part of a run's frames.
FINAL_PART = 0.25
_COLUMNS = ("correction", "replay_share", "seeds", "mean", "standard_error", "returns")


class Training(NamedTuple):
    """One of the runs that are compared."""

    correction: str
    replay_share: float
    seed: int

    @property
    def name(self) -> str:
        """Of its directory."""
        return f"{self.correction}-{'on' if self.replay_share else 'off'}-{self.seed}"

    @property
    def words(self) -> str:
        """For people."""
        return f"{self.correction}, {replay_words(self.replay_share)}, seed {self.seed}"


class TrainingEnd(NamedTuple):
    """How a run ended; `exit_code` is 0, or 3 if it diverged."""

    exit_code: int
    reason: str


class Result(NamedTuple):
    """A complete run and its evaluations, as `curves.read` gives them."""

    training: Training
    evaluations: Sequence[Mapping[str, float]]
    ending: TrainingEnd


class Cell(NamedTuple):
    """A correction with one replay share: final returns of the seeds, and what they say.

    `standard_error` is that of the mean over seeds; NaN for a single seed.
    """

    correction: str
    replay_share: float
    returns: tuple[float, ...]
    mean: float
    standard_error: float


def replay_words(replay_share: float) -> str:
    """ "with replay" or "without replay"."""
    return "with replay" if replay_share else "without replay"


def read(directory: pathlib.Path) -> list[dict[str, float]]:
    """The evaluations of a run."""
    return curves.read(directory)


def final_return(evaluations: Sequence[Mapping[str, float]]) -> float:
    """Mean return of the evaluations in the last quarter of the frames; NaN without any."""
    if not evaluations:
        return math.nan
    start = (1 - FINAL_PART) * max(row["frames"] for row in evaluations)
    return statistics.fmean(row["mean"] for row in evaluations if row["frames"] >= start)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean and its standard error, s / sqrt(n); the error of a single value is NaN."""
    count = len(values)
    error = statistics.stdev(values) / math.sqrt(count) if count > 1 else math.nan
    return statistics.fmean(values), error


def cells(results: Sequence[Result]) -> dict[tuple[str, float], Cell]:
    """Cells by correction and replay share, for those with a run that has evaluations."""
    returns: dict[tuple[str, float], list[float]] = {}
    for result in results:
        value = final_return(result.evaluations)
        if not math.isnan(value):
            key = result.training.correction, result.training.replay_share
            returns.setdefault(key, []).append(value)
    return {
        key: Cell(*key, tuple(values), *mean_and_error(values)) for key, values in returns.items()
    }


def text(
    found: Mapping[tuple[str, float], Cell],
    corrections: Sequence[str],
    replay_shares: Sequence[float],
    task: str,
) -> str:
    """The table: a row for each correction, a column for each replay share, and the difference.

    Args:
      found: of `cells`; what is missing is shown as "-".
      corrections, replay_shares: rows and columns, in this order.
      task: a line on what was trained.
    """
    heads = [replay_words(share) for share in replay_shares]
    both = len(replay_shares) == 2
    rows = [["correction", *heads, *(["gain by replay"] if both else [])]]
    for correction in corrections:
        row = [found.get((correction, share)) for share in replay_shares]
        words = [_value(cell.mean, cell.standard_error) if cell else "-" for cell in row]
        if both:
            words.append(_gain(*row))
        rows.append([correction, *words])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    seeds = max((len(cell.returns) for cell in found.values()), default=0)
    title = f"Final return: mean ± standard error over {seeds} seed{'s' if seeds != 1 else ''}"
    return "\n".join([title, task, "", *lines]) + "\n"


def notes(results: Sequence[Result]) -> str:
    """A line for each run that did not train on all its frames, or was not evaluated."""
    lines = []
    for result in results:
        if result.ending.exit_code or not result.ending.reason.startswith("reached max_frames"):
            lines.append(f"{result.training.words}: {result.ending.reason}")
        if not result.evaluations:
            lines.append(f"{result.training.words}: no evaluation; give it more --frames")
    return "".join(f"{line}\n" for line in lines)


def write_csv(path: pathlib.Path, found: Mapping[tuple[str, float], Cell]) -> None:
    """One line for each cell; `returns` has those of the seeds."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(_COLUMNS)
        for cell in found.values():
            returns = " ".join(map(repr, cell.returns))
            key = [cell.correction, cell.replay_share, len(cell.returns)]
            writer.writerow([*key, cell.mean, cell.standard_error, returns])


def _gain(without: Cell | None, with_replay: Cell | None) -> str:
    if without is None or with_replay is None:
        return "-"
    error = math.hypot(without.standard_error, with_replay.standard_error)
    return _value(with_replay.mean - without.mean, error, sign="+")


def _value(mean: float, error: float, sign: str = "") -> str:
    return f"{mean:{sign},.2f} ± {'?' if math.isnan(error) else format(error, ',.2f')}"
