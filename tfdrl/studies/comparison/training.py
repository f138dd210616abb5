"""One training run of a comparison: a launcher in a process of its own, and how it ended."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tfdrl.errors import (
    EXIT_CONFIGURATION,
    EXIT_DIVERGED,
    EXIT_OK,
    ConfigurationError,
    TfdrlError,
    UnavailableError,
)
from tfdrl.launch import curves, exits, run_directory
from tfdrl.launch.process import LAUNCHER_VARIABLE

_TICK_SECS = 0.2
_NEWS_PERIOD_SECS = 15.0
#: Beside the minutes of training: start, last checkpoint, end.
_MARGIN_SECS = 300.0
_STOP_LIMIT_SECS = 60.0
#: Written when a run is complete.
_ENDING = "comparison.json"
_LOG = "launcher.log"


class TrainingEnd(NamedTuple):
    """How a run ended: the launcher's exit code, and the learner's reason."""

    exit_code: int
    reason: str


class Training(NamedTuple):
    """One run: its directory, what to train, and for how many minutes at most."""

    directory: pathlib.Path
    gin_files: Sequence[str]
    gin_bindings: Sequence[str]
    minutes: float


def ending(directory: pathlib.Path) -> TrainingEnd | None:
    """How the run in `directory` ended; None if it is not complete."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return TrainingEnd(**json.loads((directory / _ENDING).read_text()))
    return None


def train(
    job: Training, interruptions: Callable[[], int], say: Callable[[str], None]
) -> TrainingEnd | None:
    """Trains; a run that diverges counts as complete, with the evaluations it has.

    Args:
      job: the run; its directory has none yet.
      interruptions: how often the user wanted it to stop: once stops it, twice kills it.
      say: is told now and then how far it is.

    Returns how it ended, or None if it was told to stop.

    Raises:
      TfdrlError: it failed, or did not end in time.
    """
    job.directory.mkdir(parents=True, exist_ok=True)
    log = job.directory / _LOG
    with _launcher(job, log) as process:
        code = _wait(job, process, interruptions, say)
    if interruptions():
        return None
    reason = _reason(job.directory)
    if code == EXIT_DIVERGED:
        reason = "diverged"
    elif code != EXIT_OK or not reason.startswith("reached"):
        kind = ConfigurationError if code == EXIT_CONFIGURATION else TfdrlError
        raise kind(
            f"{job.directory.name} failed ({exits.describe(code)}); its log: {log}\n"
            f"{exits.tail(log)}"
        )
    ended = TrainingEnd(code, reason)
    (job.directory / _ENDING).write_text(json.dumps(ended._asdict()) + "\n")
    return ended


@contextlib.contextmanager
def _launcher(job: Training, log: pathlib.Path):
    """The launcher's process; neither it nor its roles outlive the block or us."""
    arguments = [f"--root_dir={job.directory}"]
    arguments += [f"--gin_file={name}" for name in job.gin_files]
    arguments += [f"--gin_bindings={binding}" for binding in job.gin_bindings]
    with log.open("wb") as out:
        out.write(b"\n")  # `supervisor.tail` leaves out a log's first line
        out.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", "tfdrl.studies.comparison.process", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, LAUNCHER_VARIABLE: str(os.getpid()), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # the terminal's Ctrl-C reaches us only
        )
    try:
        yield process
    finally:
        if process.poll() is None:  # its roles die with it
            process.kill()
        process.wait()


def _wait(job: Training, process: subprocess.Popen, interruptions, say) -> int:
    """The launcher's exit code, within the time limit; tells it to stop when we are told."""
    start_secs = news_secs = time.monotonic()
    limit_secs = 60 * job.minutes + _MARGIN_SECS
    told_secs = None
    while (code := process.poll()) is None:
        now_secs = time.monotonic()
        if interruptions() and told_secs is None:
            told_secs = now_secs
            say("stopping; press Ctrl-C again to kill")
            process.send_signal(signal.SIGTERM)
        if told_secs is not None:
            if interruptions() > 1 or now_secs - told_secs > _STOP_LIMIT_SECS:
                process.kill()
        elif now_secs - start_secs > limit_secs:
            raise UnavailableError(
                f"{job.directory.name} did not end within {limit_secs:.0f} s; its log: "
                f"{job.directory / _LOG}"
            )
        elif now_secs - news_secs > _NEWS_PERIOD_SECS:
            news_secs = now_secs
            if rows := curves.read(job.directory):
                say(f"    {rows[-1]['frames']:,.0f} frames, return {rows[-1]['mean']:.2f}")
        time.sleep(_TICK_SECS)
    return code


def _reason(directory: pathlib.Path) -> str:
    """Why the learner ended, in its own words."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return str(json.loads((directory / run_directory.RESULT).read_text()).get("reason"))
    return "it left no result.json"
