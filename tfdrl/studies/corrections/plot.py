"""Learning curves of a comparison: one panel for each replay share, one line a correction."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from tfdrl.studies.corrections.table import Result, replay_words

_POINTS = 60


def draw(
    path: pathlib.Path, results: Sequence[Result], replay_shares: Sequence[float], task: str
) -> bool:
    """Draws the mean over seeds, with one standard error; False without matplotlib."""
    try:
        # Not pyplot: no display, no global state.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(5.5 * len(replay_shares), 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(replay_shares), sharey=True, squeeze=False)[0]
    for axes, replay_share in zip(panels, replay_shares):
        here = [result for result in results if result.training.replay_share == replay_share]
        for correction in dict.fromkeys(result.training.correction for result in results):
            evaluations = [
                result.evaluations
                for result in here
                if result.training.correction == correction and result.evaluations
            ]
            if evaluations:
                frames, mean, error = average(evaluations)
                (line,) = axes.plot(frames, mean, label=correction)
                axes.fill_between(
                    frames, mean - error, mean + error, color=line.get_color(), alpha=0.2
                )
        axes.set_title(replay_words(replay_share))
        axes.set_xlabel("environment frames")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("evaluation return (mean ± standard error)")
    if panels[0].lines:
        panels[0].legend()
    figure.suptitle(task, fontsize="small")
    figure.savefig(path, dpi=120)
    return True


def average(
    evaluations: Sequence[Sequence[dict[str, float]]],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames, mean and standard error over seeds, interpolated over the frames that all have.

    Args:
      evaluations: of each seed, at least one.
    """
    curves = []
    for rows in evaluations:
        ordered = sorted(rows, key=lambda row: row["frames"])
        curves.append(np.array([[row["frames"], row["mean"]] for row in ordered]).T)
    first = max(frames[0] for frames, _ in curves)
    last = min(frames[-1] for frames, _ in curves)
    grid = np.linspace(min(first, last), last, _POINTS)
    means = np.stack([np.interp(grid, *curve) for curve in curves])
    count = len(means)
    error = means.std(axis=0, ddof=1) / np.sqrt(count) if count > 1 else np.zeros(_POINTS)
    return grid, means.mean(axis=0), error
