"""The process that measures the parts of one role, with that role's threads."""

from __future__ import annotations

import json
import os
import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from tfdrl.errors import EXIT_OK
from tfdrl.launch import command_line, process
from tfdrl.topology import Address

#: Which parts belong to which role.
ROLES = {"actor": "ab", "learner": "cd"}


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    command_line.gin_flags(values)
    flags.DEFINE_string("parts", "", "Some of the letters abcd, of one role.", flag_values=values)
    flags.DEFINE_string("replay", "", "Address of the replay server.", flag_values=values)
    flags.DEFINE_integer("server_pid", 0, "Process of the replay server.", flag_values=values)
    flags.DEFINE_integer("rounds", 5, "Rounds.", flag_values=values)
    flags.DEFINE_float("round_secs", 1.0, "Seconds of a turn.", flag_values=values)
    flags.DEFINE_string("directory", "", "For scratch files and turns.json.", flag_values=values)
    return values


def main(argv: Sequence[str]) -> int:
    """Measures and leaves `turns-<parts>.json`: {part: {variant: [turn, ...]}}."""
    values = _flags()
    command_line.parse(values, argv, "Measures parts; started by tfdrl-benchmark.")
    process.die_with_launcher()
    process.silence()
    turns = _measure(values)
    path = pathlib.Path(values.directory, f"turns-{values.parts}.json")
    path.write_text(json.dumps(turns))
    return EXIT_OK


def _measure(values: flags.FlagValues) -> dict:
    from tfdrl import configuration
    from tfdrl.benchmarks import registry
    from tfdrl.benchmarks.measuring import Rounds
    from tfdrl.benchmarks.subject import PartJob
    from tfdrl.experiment import Experiment

    configuration.load(values.gin_file, values.gin_bindings, tensorflow=False)
    config = Experiment.from_gin().architecture
    is_actor = values.parts[0] in ROLES["actor"]
    process.limit_threads(config.actor_threads if is_actor else config.learner_threads)
    configuration.load(values.gin_file, values.gin_bindings, tensorflow=True)
    experiment = Experiment.from_gin()
    job = PartJob(
        experiment.architecture,
        experiment.seed,
        pathlib.Path(values.directory),
        Rounds(values.rounds, values.round_secs),
        Address.parse(values.replay) if values.replay else None,
        values.server_pid or None,
    )
    parts = registry.subject_of(experiment.architecture).parts
    return {part: parts[part].measure(job) for part in values.parts}


def console() -> None:
    """Entry point of the process; native threads cannot keep it."""
    process.leave(command_line.run("tfdrl benchmark", main, sys.argv))


if __name__ == "__main__":
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    console()
