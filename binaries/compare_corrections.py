"""Compares IMPALA's off-policy corrections under policy lag: a table and a plot."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from tfdrl.errors import EXIT_OK, ConfigurationError
from tfdrl.launch import command_line, process, run_directory
from tfdrl.studies.corrections import study

#: As tfdrl.ops.actor_critic.CORRECTIONS, which would load TensorFlow.
_CORRECTIONS = ("none", "epsilon", "one_step_is", "vtrace")
_REPLAYS = ("off", "on")
_DEFAULT = "impala/corrections.gin"
_USAGE = """Trains with each of IMPALA's off-policy corrections, with and without replay.

  tfdrl-compare-corrections --root_dir=runs/corrections
  tfdrl-compare-corrections --corrections=none,vtrace --seeds=5 --policy_lag_steps=200

The actors are kept --policy_lag_steps learner steps behind, and every run sees equally many
frames. Writes table.txt, table.csv and plot.png to --root_dir, beside a directory for each run.
The evaluations, too, are of the parameters that the actors have. The same command with the same
--root_dir skips what is complete. Progress goes to stderr, the table to stdout.
Exit codes: 0 compared or told to stop, 1 a run failed, 2 wrong configuration."""


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    command_line.gin_flags(values)
    flags.DEFINE_string(
        "root_dir",
        "",
        "Directory of the comparison, new or to be continued (default: a new one in runs/).",
        flag_values=values,
    )
    flags.DEFINE_list("corrections", list(_CORRECTIONS), "What to compare.", flag_values=values)
    flags.DEFINE_list("replay", list(_REPLAYS), "Without, with replay.", flag_values=values)
    flags.DEFINE_float(
        "replay_share", 0.5, "Part of a batch that is replayed.", 0.0, 1.0, flag_values=values
    )
    flags.DEFINE_integer("seeds", 3, "Runs of each.", lower_bound=1, flag_values=values)
    flags.DEFINE_integer(
        "policy_lag_steps",
        None,
        "Learner steps that the actors are behind (default: as in the gin file).",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "frames",
        None,
        "Environment frames of each run (default: as in the gin file).",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_float(
        "minutes",
        10.0,
        "A run ends after so many minutes even without all its frames.",
        lower_bound=0.01,
        flag_values=values,
    )
    return values


def main(argv: Sequence[str]) -> int:
    """Parses `argv` (program name first), trains, prints the table; returns the exit code."""
    values = _flags()
    command_line.parse(values, argv, _USAGE)
    _check_names("corrections", values.corrections, _CORRECTIONS)
    _check_names("replay", values.replay, _REPLAYS)
    if not 0.0 < values.replay_share < 1.0:
        raise ConfigurationError(
            f"--replay_share={values.replay_share:g} must be above 0 and below 1"
        )
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    process.silence()
    settings = study.StudySettings(
        gin_files=values.gin_file or [_DEFAULT],
        gin_bindings=values.gin_bindings,
        corrections=[name for name in _CORRECTIONS if name in values.corrections],
        replay_shares=[
            values.replay_share if name == "on" else 0.0
            for name in _REPLAYS
            if name in values.replay
        ],
        seeds=values.seeds,
        frames=values.frames,
        policy_lag_steps=values.policy_lag_steps,
        minutes=values.minutes,
    )
    root_dir = values.root_dir or run_directory.fresh(["compare/corrections"])
    root_dir = pathlib.Path(root_dir).resolve()
    study.say_on_stderr(f"comparing in {root_dir}")
    study.run(settings, root_dir, study.say_on_stderr)
    return EXIT_OK


def _check_names(flag: str, given: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in given if name not in known]
    if unknown or not given:
        raise ConfigurationError(
            f"--{flag}={','.join(given)}: {', '.join(unknown) or 'nothing'} is none of "
            f"{', '.join(known)}"
        )


def console() -> None:
    """Entry point of the console script."""
    sys.exit(command_line.run("tfdrl compare-corrections", main, sys.argv))


if __name__ == "__main__":
    console()
