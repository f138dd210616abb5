"""The same program with more and more processes of one role: a table and a curve."""

from __future__ import annotations

import logging
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tfdrl.errors import ConfigurationError
from tfdrl.planning.machines import Machines
from tfdrl.planning.prediction import ACTING, Prediction, Subject, check_size, predict

_POINTS = 16
_EXAMPLE = "--sweep=actors=1..1000 or --sweep=actors=1,2,4,8"


class Sweep(NamedTuple):
    """A role, and how many of it."""

    role: str
    counts: tuple[int, ...]


def parse(text: str, subject: Subject) -> Sweep:
    """Reads "actors=1..1000", as about so many points apart by a factor, or "actors=1,2,4".

    Raises ConfigurationError for another form, a role that cannot be swept, or no count at all.
    """
    name, _, counts = text.partition("=")
    roles = [role.name for role in subject.program.roles if role.name in ACTING]
    role = next((r for r in roles if name.strip() in (r, f"{r}s")), None)
    if role is None:
        words = ", ".join(f"{r}s" for r in roles)
        raise ConfigurationError(f"--sweep={text}: {name!r} is not one of: {words}; {_EXAMPLE}")
    found = _counts(counts)
    if not found or min(found) < 1:
        raise ConfigurationError(
            f"--sweep={text} sweeps over nothing: {counts!r} holds no number from 1 on; {_EXAMPLE}"
        )
    return Sweep(role, tuple(sorted(set(found))))


def _counts(text: str) -> list[int]:
    if matched := re.fullmatch(r"(\d+)\.\.(\d+)", text):
        low, high = int(matched[1]), int(matched[2])
        if not 1 <= low <= high:
            return []
        factor = (high / low) ** (1 / (_POINTS - 1))
        return [round(low * factor**i) for i in range(_POINTS)]
    items = [item.strip() for item in text.split(",")]
    return [int(item) for item in items] if all(item.isdigit() for item in items) else []


def run(
    sweep: Sweep,
    subject: Subject,
    machines: Machines,
    told: Callable[[int], None] = lambda count: None,
) -> list[tuple[int, Prediction]]:
    """A prediction for each count; `told` hears which comes next."""
    found = []
    check_size(subject, machines, {sweep.role: max(sweep.counts)})
    for count in sweep.counts:
        told(count)
        found.append((count, predict(subject, machines, {sweep.role: count})))
    return found


def draw(sweep: Sweep, found: Sequence[tuple[int, Prediction]], path: pathlib.Path) -> None:
    """Frames/s and learner steps/s against the count, as SVG, PNG or PDF by the file's name.

    Raises ConfigurationError if it cannot be written so.
    """
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    # Not pyplot: no display, no global state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    counts = [count for count, _ in found]
    labels = {"frames_per_second": "frames/s", "learner_steps_per_second": "learner steps/s"}
    for axes, (field, label) in zip(figure.subplots(1, 2), labels.items()):
        axes.plot(counts, [getattr(one, field) for _, one in found], marker=".")
        axes.set(xlabel=f"{sweep.role}s", ylabel=label, xscale="log", ylim=(0, None))
        axes.grid(alpha=0.3)
    try:
        figure.savefig(path, dpi=120)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--plot={path} cannot be written: {error}") from None
