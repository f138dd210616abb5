"""The progress of a run on the terminal: a live panel, or a plain line every ten seconds."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from typing import NamedTuple, TextIO, Union

from tfdrl.experiment import Experiment
from tfdrl.launch import goals
from tfdrl.launch.status import RunStatus
from tfdrl.topology import Role

_PLAIN_INTERVAL_SECS = 10.0
_PANEL_INTERVAL_SECS = 0.5
#: Share of time from which on the wait for parameters is shown.
_WORTH_A_WORD = 0.05
#: A learner that has answered before is missed after this time.
SILENCE_SECS = 120.0


class Fact(NamedTuple):
    """One row of the panel: "learner steps", "12,000 (95/s)"."""

    label: str
    value: str


class RoleProcesses(NamedTuple):
    """Processes of one role: how many run, of how many."""

    role: Role
    alive: int


def facts(
    snapshot: RunStatus,
    crews: Sequence[RoleProcesses],
    restarts: int,
    *,
    elapsed_secs: float,
    now_secs: float,
    experiment: Experiment | None = None,
    doing: str = "",
    load: Load | None = None,
) -> list[Fact]:
    """What is known now, in the order of reading; what is not known is left out.

    Args:
      snapshot: of the learner.
      crews: the processes, by role.
      restarts: how many there were.
      elapsed_secs: since the launcher's start.
      now_secs: time.monotonic().
      experiment: says what ends the training.
      doing: what has to be done before the processes can start, in words.
      load: of this machine.
    """
    found = [("elapsed", duration(elapsed_secs))]
    if snapshot.status is None:
        found.append(("starting", _starting(crews, doing)))
        return [Fact(*fact) for fact in found]
    target = experiment.solved_return if experiment else None
    silent_secs = now_secs - snapshot.answered_secs
    if silent_secs > SILENCE_SECS:
        found.append(("WARNING", f"no answer from the learner for {duration(silent_secs)}"))
    found += [
        ("frames", _counter(snapshot.status.frames, snapshot.frames_per_second)),
        ("learner steps", _counter(snapshot.status.learner_step, snapshot.steps_per_second)),
        ("learner", snapshot.status.doing),
        ("evaluation", _evaluation(snapshot, target)),
        ("episode return", _number(snapshot.metric("actor/episode_return"), "{:,.1f}")),
        ("replay", _number(snapshot.metric("replay/size"), "{:,.0f} items")),
        ("queue", _number(snapshot.metric("learner/queue"), "{:,.0f} unrolls")),
        ("waiting", "; ".join(filter(None, (_for_cores(load), waiting(snapshot))))),
        ("replay ratio", replay_ratio(snapshot)),
        ("policy lag", _number(snapshot.metric("learner/policy_lag"), "{:,.0f} learner steps")),
        ("sample age", _number(snapshot.metric("learner/sample_age_secs"), "{:,.1f} s")),
        ("loss", _number(snapshot.metric("learner/loss"), "{:.4g}")),
        ("processes", _processes(crews, restarts)),
    ]
    if experiment is not None:
        since_secs = now_secs - snapshot.first_answered_secs
        for goal in goals.goals(experiment, snapshot, since_secs):
            found.append((f"to {goal.name}", f"{goals.bar(goal.share)} ({goal.words})"))
    return [Fact(label, value) for label, value in found if value]


class Load(NamedTuple):
    """How busy a machine is.

    threads  that run or want to, mean over the last minute
    cores    that this process may use
    """

    threads: float
    cores: int

    @classmethod
    def now(cls) -> Load:
        """That of this machine."""
        return cls(os.getloadavg()[0], len(os.sched_getaffinity(0)))


def _for_cores(load: Load | None) -> str:
    """Empty unless threads wait for cores: then "learner 0 %" does not mean that all is well."""
    if load is None or load.threads <= load.cores:
        return ""
    return f"for cores: {load.threads:.1f} runnable threads on {load.cores} (mean of a minute)"


def _starting(crews: Sequence[RoleProcesses], doing: str) -> str:
    names = ", ".join(_count(c.role.name, c.role.replicas) for c in crews)
    if doing:
        return f"{names} ({doing})"
    up, there_are = sum(c.alive for c in crews), sum(c.role.replicas for c in crews)
    return f"{names} ({up} of {there_are} processes run; they build their networks)"


def line(rows: Sequence[Fact]) -> str:
    """The facts on one line, for a log file."""
    return " | ".join(f"{row.label} {row.value}" for row in rows)


def duration(secs: float) -> str:
    """Seconds as h:mm:ss."""
    minutes, seconds = divmod(int(secs), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"


def _count(name: str, count: int) -> str:
    return name if count == 1 else f"{count} {name}s"


def _number(value: float | None, form: str) -> str:
    return "" if value is None else form.format(value)


def _counter(count: int, per_second: float | None) -> str:
    if per_second is None:
        return f"{count:,}"
    decimals = 0 if per_second >= 10 else 1
    return f"{count:,} ({per_second:,.{decimals}f}/s)"


def _evaluation(snapshot: RunStatus, target: float | None) -> str:
    last, best = snapshot.status.evaluation, snapshot.best
    if last is None:
        return ""
    others = [f"best {best.mean:,.1f}"] if best else []
    if target is not None:
        others.append(f"target {target:,.1f}")
    return f"return {last.mean:,.1f} ± {last.standard_error:.1f} ({', '.join(others)})"


def waiting(snapshot: RunStatus) -> str:
    """How much of its time each waits for data, or for room: "learner 4 %, actors 12 %"; or empty.

    Also for parameters, where that is worth a word. What they wait for the replay ratio is not part
    of it: that they are meant to.
    """
    found = _shares(snapshot, "waiting_share", ("learner", "actor"))
    pulling = snapshot.metric("actor/pulling_share")
    if pulling is not None and pulling >= _WORTH_A_WORD:
        found.append(f"actors for parameters {100 * pulling:.0f} %")
    return ", ".join(found)


def replay_ratio(snapshot: RunStatus) -> str:
    """Samples of an item: "7.9 (set 8); waiting for it: actors 30 %, learner 2 %"; or empty."""
    held = snapshot.metric("learner/replay_ratio")
    wanted = snapshot.metric("learner/replay_ratio_set")
    if wanted is None:
        return _number(held, "{:.2g} (not set)")
    words = f"{_number(held, '{:.3g}') or 'not known yet'} (set {wanted:.3g})"
    shares = _shares(snapshot, "ratio_waiting_share", ("actor", "learner"))
    return f"{words}; waiting for it: {', '.join(shares)}" if shares else words


def _shares(snapshot: RunStatus, name: str, roles: Sequence[str]) -> list[str]:
    """Of the time of each role that reports it: "learner 4 %"."""
    found = []
    for role in roles:
        share = snapshot.metric(f"{role}/{name}")
        if share is not None:
            words = "actors" if role == "actor" else role
            found.append(f"{words} {100 * share:.0f} %")
    return found


def _processes(crews: Sequence[RoleProcesses], restarts: int) -> str:
    parts = [f"{crew.role.name} {crew.alive}/{crew.role.replicas}" for crew in crews]
    if restarts:
        parts.append(f"{restarts} restart{'s' if restarts > 1 else ''}")
    return ", ".join(parts)


class LineDisplay:
    """Prints a line at once and then every `interval_secs`: for logs and pipes."""

    def __init__(self, out: TextIO, interval_secs: float = _PLAIN_INTERVAL_SECS):
        self._out = out
        self._interval_secs = interval_secs
        self._due_secs = 0.0

    def is_due(self) -> bool:
        """Whether `show` would show something now."""
        return time.monotonic() >= self._due_secs

    def show(self, rows: Sequence[Fact]) -> None:
        """Shows the facts."""
        self._due_secs = time.monotonic() + self._interval_secs
        self.say(line(rows))

    def say(self, text: str) -> None:
        """Prints a message that stays."""
        print(text, file=self._out, flush=True)

    def close(self) -> None:
        """Gives the terminal back. May be called twice."""


class PanelDisplay:
    """Keeps one panel up to date at the bottom of a terminal."""

    def __init__(self, title: str):
        from rich import live

        self._title = title
        self._live = live.Live(auto_refresh=False, transient=False)
        self._live.start()
        self._due_secs = 0.0

    def is_due(self) -> bool:
        """Whether `show` would show something now."""
        return time.monotonic() >= self._due_secs

    def show(self, rows: Sequence[Fact]) -> None:
        """Shows the facts."""
        from rich import panel, table, text

        self._due_secs = time.monotonic() + _PANEL_INTERVAL_SECS
        grid = table.Table.grid(padding=(0, 2))
        for row in rows:
            style = "bold red" if row.label == "WARNING" else ""
            grid.add_row(text.Text(row.label, style=style or "dim"), text.Text(row.value, style))
        self._live.update(panel.Panel(grid, title=self._title, expand=False), refresh=True)

    def say(self, text: str) -> None:
        """Prints a message above the panel."""
        self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Gives the terminal back. May be called twice."""
        self._live.stop()


Display = Union[LineDisplay, PanelDisplay]


def display(title: str) -> Display:
    """The panel on a terminal where rich is installed, else lines."""
    if sys.stdout.isatty():
        try:
            return PanelDisplay(title)
        except ImportError:
            pass
    return LineDisplay(sys.stdout)
