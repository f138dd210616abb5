"""The process that launches one run of a comparison: `tfdrl-train`, without its defaults."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from tfdrl import configuration
from tfdrl.experiment import Experiment
from tfdrl.launch import command_line, printed_commands, process
from tfdrl.launch.run import run_program


def main(argv: Sequence[str]) -> int:
    """Trains until a limit is reached; returns the exit code."""
    values = flags.FlagValues()
    command_line.gin_flags(values)
    flags.DEFINE_string("root_dir", "", "Directory of the run.", flag_values=values)
    command_line.parse(values, argv, "Trains; started by tfdrl-compare.")
    process.die_with_launcher()
    process.silence()
    loaded = configuration.load(values.gin_file, values.gin_bindings, tensorflow=False)
    experiment = Experiment.from_gin()
    command = [printed_commands.program("tfdrl-train"), *argv[1:]]
    return run_program(
        experiment,
        experiment.architecture.program(),
        loaded,
        pathlib.Path(values.root_dir),
        values.gin_file,
        values.gin_bindings,
        command=command,
    )


if __name__ == "__main__":
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    sys.exit(command_line.run("tfdrl train", main, sys.argv))
