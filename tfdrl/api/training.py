"""Training from a Python program or a notebook."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tfdrl.api import bindings as gin_lines
from tfdrl.api.channel import Worker
from tfdrl.api.run import Run
from tfdrl.api.snapshots import Snapshot
from tfdrl.errors import (
    EXIT_CONFIGURATION,
    EXIT_DIVERGED,
    EXIT_OK,
    ConfigurationError,
    RoleFailedError,
    RunFailedError,
    TfdrlError,
    TrainingDivergedError,
)
from tfdrl.launch.settings import LauncherSettings, Limits, finite_number, whole_number
from tfdrl.launch.supervisor import RunEnd

#: The module of the process that works for this one.
WORKER = "tfdrl.api.worker"
_STOP = "stop"


def train(
    gin_file: str | os.PathLike | Iterable[str | os.PathLike],
    bindings: gin_lines.Bindings = (),
    root_dir: str | os.PathLike = "",
    on_progress: Callable[[Snapshot], str | None] | None = None,
    *,
    allow_config_change: bool = False,
    stuck_after_secs: float = 600.0,
    max_restarts: int = 5,
    quiet: bool = False,
) -> Run:
    """Trains until the gin file's target or a limit is reached, as `tfdrl-train` does.

    The work is done by other processes of this machine, which end with this one. May be called
    from any thread, and several times at once.

    Args:
      gin_file: by path or by name, such as "impala/cartpole.gin"; or several.
      bindings: lines such as ["apex.actors = 8"], or a dict such as {"apex.actors": 8}.
      root_dir: directory of the run, new or to be continued; empty: a new one in runs/.
      on_progress: is called about once a second, from this thread; if it returns "stop" the run
        ends with a checkpoint. So it does if it raises, and its exception is raised here then.
      allow_config_change: continue root_dir with settings that differ from those before.
      stuck_after_secs: the run ends after so long without a learner step and without a frame.
      max_restarts: of a process that dies, within five minutes.
      quiet: nothing is printed.

    Returns the run, which has finished or was told to stop.

    Raises:
      ConfigurationError: what is set cannot work; nothing has been trained unless it says so.
      TrainingDivergedError: losses or gradients were not finite.
      RoleFailedError: a role failed, whose last lines it has.
      RunFailedError: the run failed in another way.
      KeyboardInterrupt: Ctrl-C, or a notebook's stop button, has ended the run, with a checkpoint;
        the same call with the same root_dir goes on with it.
    """
    if on_progress is not None and not callable(on_progress):
        raise ConfigurationError(f"on_progress={on_progress!r} must be a function of a snapshot")
    return launched(
        gin_lines.files(gin_file),
        gin_lines.lines(bindings),
        os.fspath(root_dir),
        LauncherSettings(
            Limits(max_restarts=whole_number("max_restarts", max_restarts, 0)),
            finite_number("stuck_after_secs", stuck_after_secs, 1),
            allow_config_change=allow_config_change,
        ),
        on_progress,
        _nothing if quiet else print,
    )


def launched(
    gin_files: Sequence[str],
    gin_bindings: Sequence[str],
    root_dir: str,
    settings: LauncherSettings,
    on_progress: Callable[[Snapshot], str | None] | None,
    say: Callable[[str], None],
) -> Run:
    """As `train`, with all settings of a launcher; `say` takes each line that it prints."""
    request = {
        "gin_files": list(gin_files),
        "gin_bindings": list(gin_bindings),
        "root_dir": root_dir,
        "settings": {**settings._asdict(), "limits": settings.limits._asdict()},
    }
    worker = Worker(WORKER, ["train", request], say)
    results = followed(worker, _Progress(worker, on_progress).notice)
    if "end" not in results:
        raise worker.failure()
    raise_failure(RunEnd(**results["end"]), results["root_dir"])
    return Run(results["root_dir"])


def followed(worker: Worker, notice: Callable[[str, Any], None] = lambda *_: None) -> dict:
    """The results of a worker, at its end; whatever is raised meanwhile stops it first.

    Raises the error that it tells of.
    """
    try:
        worker.follow(notice)
    except BaseException:
        worker.stop()
        raise
    error = worker.results.get("error")
    if error is not None:
        wrong = error["exit_code"] == EXIT_CONFIGURATION
        raise ConfigurationError(error["text"]) if wrong else TfdrlError(error["text"])
    return worker.results


class _Progress:
    """Calls the user's function with each snapshot, until it says "stop"."""

    def __init__(self, worker: Worker, on_progress: Callable[[Snapshot], str | None] | None):
        self._worker, self._on_progress = worker, on_progress

    def notice(self, kind: str, value: Any) -> None:
        """Takes a message of the worker."""
        if kind != "snapshot" or self._on_progress is None:
            return
        answer = self._on_progress(Snapshot(**value))
        if answer not in (None, _STOP):
            raise ConfigurationError(
                f'on_progress must return None to go on, or "{_STOP}", not {answer!r}'
            )
        if answer == _STOP:
            self._on_progress = None
            self._worker.ask_to_stop()


def raise_failure(end: RunEnd, root_dir: str) -> None:
    """Raises the error for the end of a run, if it is a failure."""
    code, reason, last_lines = end.exit_code, end.reason, end.details
    if code == EXIT_CONFIGURATION:
        raise ConfigurationError(reason)
    if code == EXIT_DIVERGED:
        raise TrainingDivergedError(reason, root_dir, last_lines)
    if code != EXIT_OK:
        raise (RoleFailedError if last_lines else RunFailedError)(reason, root_dir, last_lines)


def _nothing(text: str) -> None:
    """Says nothing."""
