"""Starts a training from its gin files: read, tried, and run to its end."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from tfdrl import configuration
from tfdrl.launch import process, run_directory
from tfdrl.launch.launcher import Launcher
from tfdrl.launch.settings import LauncherSettings

if TYPE_CHECKING:
    from tfdrl.launch.observer import Observer

#: For making one environment; the roles say what is wrong with one that takes longer.
_CHECK_SECS = 120.0


def prepare(verbose: bool) -> None:
    """Call in a process that is to train, before it imports much."""
    # Restarts fork while gRPC's threads run; its fork handlers would only print warnings.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    if not verbose:
        process.silence()


def train(
    gin_files: Sequence[str],
    gin_bindings: Sequence[str],
    root_dir: str,
    settings: LauncherSettings,
    command: Callable[[pathlib.Path], Sequence[str]],
    launcher: Callable[[], Launcher | None] = lambda: None,
    observer: Observer | None = None,
) -> int:
    """Trains, in a process that does nothing else, as `run_program` does.

    Args:
      gin_files: by path or by name.
      gin_bindings: settings more.
      root_dir: of the run, new or to be continued; empty: a new one in runs/.
      settings: of the supervision.
      command: what continues the run in that root_dir.
      launcher: makes what starts the processes, once the gin files are known to be right.
      observer: is told of the run.

    Returns the exit code. Raises ConfigurationError before any role has started.
    """
    run_directory.check_temporary_directory()
    here = os.getcwd()
    loaded = configuration.load(gin_files, gin_bindings, tensorflow=False)
    os.chdir(here)  # a user's package may have moved; paths mean what they meant when typed
    # Not before: gRPC, NumPy and rich would double what a typo costs.
    from tfdrl.experiment import Experiment
    from tfdrl.launch.run import run_program

    experiment = Experiment.from_gin()
    program = experiment.architecture.program()
    _check_environment(experiment.architecture, loaded)
    path = pathlib.Path(root_dir or run_directory.fresh(gin_files))
    return run_program(
        experiment,
        program,
        loaded,
        path,
        gin_files,
        gin_bindings,
        settings,
        command(path),
        launcher(),
        observer,
    )


def _check_environment(architecture: object, loaded: configuration.Configuration) -> None:
    """Builds one environment, so that a wrong name or a missing package is found here and now.

    In a process of its own: it may change the directory, signals, whatever it likes.
    """
    make = getattr(architecture, "environment", None)
    if not callable(make) or isinstance(make, configuration.Unavailable):
        return
    if any(line.split()[1] not in sys.modules for line in loaded.imports):
        return  # a package of the user's needs TensorFlow: only the roles have its environments
    process.run_apart(
        lambda: make(num_envs=1, training=False, seed=0).close(), _CHECK_SECS, "its environment"
    )
