"""The page that a run leaves at its end: why it ended, how good it is, where everything lies."""

from __future__ import annotations

import contextlib
import json
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from tfdrl.launch import curves, printed_commands, run_directory
from tfdrl.launch.panel import duration
from tfdrl.launch.status import RunStatus

_PLACES = (
    ("TensorBoard events", run_directory.TENSORBOARD),
    ("checkpoints", run_directory.CHECKPOINTS),
    ("exported policy", run_directory.POLICY),
    ("evaluations", run_directory.EVALUATIONS),
    ("learning curve", curves.FILE),
    ("logs", run_directory.LOGS),
)


def text(
    root_dir: pathlib.Path,
    *,
    reason: str,
    exit_code: int,
    elapsed_secs: float,
    snapshot: RunStatus,
    target: float | None,
    command: Sequence[str],
) -> str:
    """The summary, from what the learner wrote at its end, else from its last status.

    Args:
      root_dir: the run's directory.
      reason: why it ended, in the launcher's words; the learner's own come first.
      exit_code: of the run.
      elapsed_secs: since this start.
      snapshot: the last that the launcher knew.
      target: the mean return at which the training ends, if it is set.
      command: that starts this run, with its --root_dir: it continues it.
    """
    result = _result(root_dir, snapshot)
    rows = [
        ("ended", _ended(result, reason, exit_code)),
        ("exit code", str(exit_code)),  # of the run; the words may have that of a role
        ("evaluation", _evaluation(result.get("evaluation"), target)),
        ("best evaluation", _best(root_dir, snapshot)),
        ("environment frames", _count(result.get("frames"))),
        ("learner steps", _count(result.get("learner_steps"))),
        ("training time", _duration(result.get("training_secs"))),
        ("wall time", f"{duration(elapsed_secs)} (this start)"),
        *((name, str(root_dir / path)) for name, path in _PLACES if (root_dir / path).exists()),
        ("continue", shlex.join(command)),
        ("look at it", shlex.join(tensorboard(root_dir))),
    ]
    width = max(len(name) for name, _ in rows) + 2
    return "\n".join(f"{name:<{width}}{value}" for name, value in rows if value) + "\n"


def write(root_dir: pathlib.Path, page: str) -> None:
    """Writes root_dir/summary.txt; a disk that is full is no reason to fail."""
    with contextlib.suppress(OSError):
        (root_dir / run_directory.SUMMARY).write_text(page)


def read(root_dir: pathlib.Path) -> dict[str, str]:
    """The rows of root_dir/summary.txt by name; empty while a run has not ended, or was killed."""
    rows = {}
    with contextlib.suppress(OSError, UnicodeDecodeError):
        for line in (root_dir / run_directory.SUMMARY).read_text().splitlines():
            name, _, value = line.partition("  ")  # two spaces at least; a name has single ones
            rows[name] = value.strip()
    return rows


def tensorboard(root_dir: pathlib.Path) -> list[str]:
    """The command that shows the run."""
    events = str(root_dir / run_directory.TENSORBOARD)
    if printed_commands.is_found("tensorboard"):
        return [printed_commands.program("tensorboard"), "--logdir", events]
    # Scripts of a --target or --user installation lie elsewhere; the module is there.
    return [printed_commands.python(), "-m", "tensorboard.main", "--logdir", events]


def _result(root_dir: pathlib.Path, snapshot: RunStatus) -> dict[str, Any]:
    known: dict[str, Any] = {}
    if snapshot.status is not None:
        known = {"frames": snapshot.status.frames, "learner_steps": snapshot.status.learner_step}
        if snapshot.status.evaluation is not None:
            known["evaluation"] = snapshot.status.evaluation._asdict()
    with contextlib.suppress(OSError, ValueError):
        written = json.loads((root_dir / run_directory.RESULT).read_text())
        if isinstance(written, dict):
            known.update({name: value for name, value in written.items() if value is not None})
    return known


def _ended(result: Mapping[str, Any], reason: str, exit_code: int) -> str:
    own = result.get("reason") if exit_code == 0 else None
    words = own or reason
    return words if "exit code" in words else f"{words} (exit code {exit_code})"


def _evaluation(evaluation: Any, target: float | None) -> str:
    if not isinstance(evaluation, Mapping) or "mean" not in evaluation:
        return ""
    words = f"return {evaluation['mean']:,.2f}"
    if "standard_error" in evaluation:
        words += f" ± {evaluation['standard_error']:.2f} (standard error)"
    if "episodes" in evaluation:
        words += f" over {evaluation['episodes']:,.0f} episodes"
    return words if target is None else f"{words}; the target is {target:,.2f}"


def _best(root_dir: pathlib.Path, snapshot: RunStatus) -> str:
    means = [row["mean"] for row in curves.read(root_dir) if "mean" in row]
    if snapshot.best is not None:
        means.append(snapshot.best.mean)
    return f"return {max(means):,.2f}" if means else ""


def _count(value: Any) -> str:
    return f"{value:,.0f}" if isinstance(value, (int, float)) else ""


def _duration(secs: Any) -> str:
    return duration(secs) if isinstance(secs, (int, float)) else ""
