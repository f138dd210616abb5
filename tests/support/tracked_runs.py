"""A run that has ended, and `tfdrl track` of it in the environment that TRACK_VENV names."""

import os
import pathlib
import subprocess
import time
from collections import Counter

import made_runs
import pytest
from paths import CHECKOUT

from tfdrl.tracking.points import EventFiles

_VENV = os.environ.get("TRACK_VENV", "")
BIN = pathlib.Path(_VENV) / "bin"
LIMIT_SECS = 90.0

#: Of a module whose tests need mlflow and wandb; both are in the environment that is named.
MARKS = [
    pytest.mark.slow,
    pytest.mark.skipif(not _VENV, reason="no TRACK_VENV: docs/tracking.md makes one"),
]


def make(directory: pathlib.Path) -> pathlib.Path:
    """A run that has ended, of 57 points."""
    metrics = {"loss": 0.5, "norm (global)": 2.0, "rate": 3.0}
    scalars = {"learner-0": metrics, "actor-0": {"actor/waiting_share": 0.3}}
    made = made_runs.make(directory, made_runs.impala(), scalars=scalars)
    odd = [(made_runs.BEGIN_SECS + i, i, "odd", x) for i, x in enumerate((float("nan"), -2.5))]
    made_runs.write_events(made / "tensorboard" / "evaluator-0", odd)
    (made / "report.html").write_text("<html>")
    (made / "summary.txt").write_text("ended               solved (exit code 0)\n")
    return made


def points(run: pathlib.Path) -> Counter:
    """Its points as MLflow names them: (name, step, milliseconds)."""
    found, at = [], {}
    files = EventFiles(run / "tensorboard")
    while (look := files.take(at))[1] != at:
        found, at = found + look[0], look[1]
    names = {point.name: point.name.replace("(", "_").replace(")", "_") for point in found}
    return Counter((names[p.name], p.step, int(p.secs * 1000)) for p in found)


def start(run: pathlib.Path, *flags: str) -> subprocess.Popen:
    """`tfdrl track` with its output in a pipe."""
    return subprocess.Popen(
        [BIN / "python", "-m", "binaries.track", *flags, str(run)],
        cwd=CHECKOUT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def track(run: pathlib.Path, *flags: str) -> tuple[int, str]:
    """The exit code and output of `tfdrl track`, to its end."""
    process = start(run, *flags)
    output, _ = process.communicate(timeout=LIMIT_SECS)
    return process.returncode, output


def wait_for(condition, what: str) -> None:
    """Until it holds; a test that waits in vain fails."""
    until_secs = time.monotonic() + LIMIT_SECS
    while not condition():
        assert time.monotonic() < until_secs, what
        time.sleep(0.2)
