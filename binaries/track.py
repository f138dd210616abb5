"""Sends a run to an experiment tracker, while it trains or afterwards; without TensorFlow."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from tfdrl.errors import EXIT_OK, ConfigurationError
from tfdrl.launch import command_line
from tfdrl.launch.interrupts import Interrupts

_USAGE = """Follows a run, and sends its numbers, settings and result to an experiment tracker.

  tfdrl track --to=mlflow --uri=http://hub:5000 runs/a
  tfdrl track --to=wandb --offline runs/a         (then: wandb sync runs/a/tracking/wandb/*)
  tfdrl track --to=csv runs/a                     tables in runs/a/tracking/csv

Ends with the run; for one that has ended it sends what there is. Whatever ends it, the same command
goes on where it was. It needs no TensorFlow, beside which MLflow and W&B cannot be installed:
docs/tracking.md makes it an environment. Exit codes: 0 sent, 1 the tracker does not answer,
2 no run, a run without events, or a package that is missing."""

_TRACKERS = ("csv", "mlflow", "wandb")


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    flags.DEFINE_enum(
        "to", "csv", _TRACKERS, "The tracker: csv, mlflow, wandb.", flag_values=values
    )
    about = "MLflow's server (default: MLFLOW_TRACKING_URI)."
    flags.DEFINE_string("uri", "", about, flag_values=values)
    about = "MLflow's experiment, or W&B's project."
    flags.DEFINE_string("experiment", "tfdrl", about, flag_values=values)
    about = "W&B: into files that `wandb sync` sends later."
    flags.DEFINE_bool("offline", False, about, flag_values=values)
    flags.DEFINE_string("output", "", "Directory of the tables of csv.", flag_values=values)
    about = "Roles whose numbers are sent, such as learner,evaluator (default: all)."
    flags.DEFINE_list("roles", [], about, flag_values=values)
    about = "Go on until Ctrl-C: for a run whose processes are on other machines."
    flags.DEFINE_bool("wait", False, about, flag_values=values)
    about = "How long the tracker may not answer."
    command_line.float_flag(values, "timeout_secs", 60.0, about, lowest=1.0)
    return values


def main(argv: Sequence[str]) -> int:
    """Parses `argv` (program name first) and sends; returns the exit code."""
    values = _flags()
    given = command_line.parse_arguments(values, argv, _USAGE)
    if len(given) != 1:
        raise ConfigurationError("which run? give its directory, such as: tfdrl track runs/a")
    root_dir = pathlib.Path(given[0])
    try:
        from tfdrl.tracking.tracker import Tracker

        destination = _destination(values, root_dir)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        raise ConfigurationError(
            f"{sys.executable} has no package {package}, which --to={values.to} needs; "
            "docs/tracking.md says how to make an environment that has it"
        ) from None
    with Interrupts() as interrupts:
        tracker = Tracker(
            root_dir,
            destination,
            roles=values.roles,
            timeout_secs=values.timeout_secs,
            stopped=lambda: interrupts.count > 0,
        )
        print(f"{tracker.follow(values.wait):,} points sent to {destination.place}")
    return EXIT_OK


def _destination(values: flags.FlagValues, root_dir: pathlib.Path):
    """The tracker that the flags name. Raises ModuleNotFoundError without its package."""
    if values.to == "mlflow":
        uri = values.uri or os.environ.get("MLFLOW_TRACKING_URI", "")
        if not uri:
            raise ConfigurationError("which server? give --uri, such as http://localhost:5000")
        from tfdrl.tracking.mlflow_server import MlflowServer

        return MlflowServer(uri, values.experiment, values.timeout_secs)
    own = root_dir / "tracking"
    if values.to == "wandb":
        from tfdrl.tracking.wandb_project import WandbProject

        return WandbProject(values.experiment, own, values.offline, values.timeout_secs)
    from tfdrl.tracking.csv_files import CsvFiles

    return CsvFiles(pathlib.Path(values.output) if values.output else own / "csv")


def console() -> None:
    """Entry point of the console script."""
    sys.exit(command_line.run("tfdrl track", main, sys.argv))


if __name__ == "__main__":
    console()
