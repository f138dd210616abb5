"""Compares architectures, or values of settings: trains each with several seeds, writes a page."""

from __future__ import annotations

import os
import pathlib
import sys
from collections.abc import Sequence

from absl import flags

from tfdrl.errors import EXIT_OK, ConfigurationError
from tfdrl.launch import command_line, process, run_directory

_USAGE = """Trains several settings side by side, each with several seeds, and writes report.html.

  tfdrl-compare --task=cartpole --root_dir=runs/cmp
  tfdrl-compare --task=cartpole --architectures=dqn,impala --seeds=1,2,3,4,5 --minutes=1
  tfdrl-compare --gin_file=impala/corrections.gin --frames=300000 \\
      --vary='VTraceAgent.correction=none,epsilon,one_step_is,vtrace'
  tfdrl-compare runs/a runs/b         runs that there are: the same as tfdrl-report

One run after the other, all under one budget: --frames, or --minutes. None ends at its target, so
that the better ones do not train less. The same command with the same --root_dir skips what is
complete. Several --vary make all combinations. Progress goes to stderr, the table to stdout.
Exit codes: 0 compared or told to stop, 1 a run failed, 2 wrong configuration."""


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    command_line.gin_flags(values)
    about = "Directory of the comparison, new or to be continued (default: a new one in runs/)."
    flags.DEFINE_string("root_dir", "", about, flag_values=values)
    about = "Compare architectures on it: cartpole, catch_memory or pong."
    flags.DEFINE_string("task", "", about, flag_values=values)
    about = "With --task: which, such as dqn,gorila,a3c,apex,impala,seed (default: all it has)."
    flags.DEFINE_list("architectures", [], about, flag_values=values)
    about = "A setting and its values, such as 'a3c.workers=1,2,4,8'; with --gin_file, or --task "
    about += "and one architecture."
    flags.DEFINE_multi_string("vary", [], about, flag_values=values)
    flags.DEFINE_list("seeds", ["1", "2", "3"], "Of the runs.", flag_values=values)
    about = "Environment frames of each run (default: as many as it makes in its minutes)."
    flags.DEFINE_integer("frames", None, about, lower_bound=1, flag_values=values)
    about = "Minutes of training of each run (default: as the task has; 10 at most with --frames)."
    command_line.float_flag(values, "minutes", None, about, lowest=0.01)
    about = "Of runs that there are: the file to write (default: report.html)."
    flags.DEFINE_string("output", "", about, flag_values=values)
    return values


def main(argv: Sequence[str]) -> int:
    """Parses `argv` (program name first), trains, prints the table; returns the exit code."""
    values = _flags()
    rest = command_line.parse_arguments(values, argv, _USAGE)
    if rest:
        return _of_runs(values, rest)
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    process.silence()
    from tfdrl.studies.comparison import study

    found = _study(values)
    name = values.task or "-".join(pathlib.PurePath(values.gin_file[0]).with_suffix("").parts[-2:])
    root_dir = values.root_dir or run_directory.fresh([f"compare/{name}"])
    root_dir = pathlib.Path(root_dir).resolve()
    study.say_on_stderr(f"comparing in {root_dir}")
    study.run(found, root_dir, study.say_on_stderr)
    return EXIT_OK


def _of_runs(values: flags.FlagValues, directories: Sequence[str]) -> int:
    """The page of runs that there are."""
    from tfdrl.reports import page

    names = ("task", "architectures", "vary", "gin_file", "frames", "minutes", "root_dir")
    told = [name for name in names if values[name].present]
    if told:
        raise ConfigurationError(
            f"--{told[0]} is for training, and {directories[0]} is taken for a run that there is; "
            "give one or the other"
        )
    print(page.of_directories(directories, values.output))
    return EXIT_OK


def _study(values: flags.FlagValues):
    """What the flags ask for. Raises ConfigurationError."""
    from tfdrl.studies.comparison import settings, study

    if bool(values.task) == bool(values.gin_file):
        raise ConfigurationError(
            "what is compared? give --task=cartpole (or catch_memory, pong), or --gin_file with "
            "--vary, or directories of runs"
        )
    bindings = tuple(values.gin_bindings)
    settings.check_bindings(bindings)
    if values.task:
        found = settings.of_task(values.task, values.architectures, bindings)
    else:
        if values.architectures:
            raise ConfigurationError("--architectures goes with --task; give a gin file or a task")
        label = pathlib.PurePath(values.gin_file[0]).stem
        found = [settings.Setting(label, tuple(values.gin_file), bindings)]
    if values.vary:
        if len(found) > 1:
            raise ConfigurationError(
                "--vary varies one architecture: give --gin_file, or one of --architectures"
            )
        found = settings.varied(found[0], values.vary)
    found = settings.heeded(found, bindings, study.say_on_stderr)
    return study.Study(found, _seeds(values.seeds), _budget(values, settings))


def _budget(values: flags.FlagValues, settings):
    minutes = values.minutes
    if minutes is None:
        minutes = settings.MOST_MINUTES
        if values.frames is None:
            if not values.task:
                raise ConfigurationError("every run needs the same: give --frames or --minutes")
            minutes = settings.MINUTES[values.task]
    return settings.Budget(values.frames, minutes)


def _seeds(given: Sequence[str]) -> list[int]:
    wrong = [text for text in given if not text.strip().isdigit()]
    if wrong or not given:
        raise ConfigurationError(
            f"--seeds={','.join(given)}: {wrong[0] if wrong else 'nothing'!r} is no seed; write "
            "whole numbers, such as --seeds=1,2,3"
        )
    return list(dict.fromkeys(map(int, given)))


def console() -> None:
    """Entry point of the console script."""
    sys.exit(command_line.run("tfdrl compare", main, sys.argv))


if __name__ == "__main__":
    console()
