"""The learning curve of a run, drawn from evaluations.csv where matplotlib is installed."""

from __future__ import annotations

import contextlib
import csv
import logging
import pathlib

from tfdrl.launch import run_directory

FILE = "learning_curve.png"


def read(root_dir: pathlib.Path) -> list[dict[str, float]]:
    """The rows of evaluations.csv; empty if there is none. Those that a kill has cut are left out.

    So are those that a crash of the machine has made of other bytes.

    Columns: seconds, frames, learner_steps, mean, standard_error, minimum, maximum, episodes.
    """
    rows, path = [], root_dir / run_directory.EVALUATIONS
    with contextlib.suppress(OSError, csv.Error), path.open(errors="replace") as file:
        for row in csv.DictReader(line.replace("\0", "") for line in file):
            with contextlib.suppress(TypeError, ValueError):
                rows.append({name: float(value) for name, value in row.items()})
    return rows


def draw(root_dir: pathlib.Path, target: float | None = None) -> pathlib.Path | None:
    """Draws learning_curve.png: mean return with two standard errors against frames and time.

    Returns its path; None without evaluations, matplotlib, or room for either.
    """
    rows = read(root_dir)
    if not rows or not {"frames", "seconds", "mean", "standard_error"} <= rows[0].keys():
        return None  # before matplotlib, whose import takes a second
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # where its cache lies
    try:
        # Not pyplot: no display, no global state.
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except (ImportError, OSError):  # it wants a directory for its cache
        return None
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    mean = [row["mean"] for row in rows]
    low = [row["mean"] - 2 * row["standard_error"] for row in rows]
    high = [row["mean"] + 2 * row["standard_error"] for row in rows]
    labels = {"frames": "environment frames", "seconds": "seconds of training"}
    for axes, (column, label) in zip(figure.subplots(1, 2, sharey=True), labels.items()):
        x = [row[column] for row in rows]
        axes.plot(x, mean, marker=".")
        axes.fill_between(x, low, high, alpha=0.2)
        if target is not None:
            axes.axhline(target, linestyle="--", color="gray")
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("evaluation return (mean ± 2 standard errors)")
    path = root_dir / FILE
    try:
        figure.savefig(path, dpi=120)
    except OSError:
        return None
    return path
