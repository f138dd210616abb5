"""Trains: starts every role of a gin file's program, here or on a cluster, and watches them."""

from __future__ import annotations

import pathlib
import sys
import textwrap
from collections.abc import Sequence

from absl import flags

from tfdrl import configuration
from tfdrl.errors import EXIT_OK, ConfigurationError
from tfdrl.launch import command_line, launchers, printed_commands, run_directory, training
from tfdrl.launch.launcher import Launcher
from tfdrl.launch.settings import LauncherSettings, Limits
from tfdrl.reports.at_the_end import ReportWriter

_USAGE = """Trains until the gin file's target or a limit is reached.

  tfdrl-train apex/cartpole
  tfdrl-train --gin_file=apex/cartpole.gin --gin_bindings='apex.actors = 8' --root_dir=runs/a
  tfdrl-train dqn/cartpole --seeds=1,2,3 --sweep='adam.learning_rate=1e-3,2e-3' --parallel=2
  tfdrl-train --launcher=slurm --gin_file=apex/cartpole.gin --root_dir=/shared/a
  tfdrl-train --launcher=ray --gin_file=apex/cartpole.gin --root_dir=/shared/a

Starting again with the same --root_dir continues the run. Ctrl-C stops it, with a checkpoint.
Exit codes: 0 finished or told to stop, 1 failed, 2 wrong configuration, 3 training diverged."""


_LINE = 118  # of --list


#: Flags that a later start of the same run keeps.
_WATCHING = (
    "stuck_after_secs",
    "max_restarts",
    "restart_window_secs",
    "min_replicas_share",
    "preload",
    "launcher",
    "ray_address",
    "resources",
    "insecure_network",
    "requeue",
    "verbose",
)


#: Launchers that heed a flag which means nothing to the others.
_LAUNCHERS_OF = {
    "resources": ("slurm", "ray"),
    "insecure_network": ("slurm", "ray"),
    "requeue": ("slurm",),
    "ray_address": ("ray",),
}


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    command_line.gin_flags(values)
    flags.DEFINE_string(
        "root_dir",
        "",
        "Directory of the run, new or to be continued (default: a new one in runs/).",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "allow_config_change",
        False,
        "Continue --root_dir with settings that differ from those it was started with.",
        flag_values=values,
    )
    command_line.float_flag(
        values,
        "stuck_after_secs",
        600.0,
        "End the run after so long without a learner step and without an environment frame.",
        lowest=1.0,
    )
    flags.DEFINE_integer(
        "max_restarts",
        5,
        "How often a process that dies is started again within --restart_window_secs; at the next "
        "death it is given up.",
        lower_bound=0,
        flag_values=values,
    )
    command_line.float_flag(
        values, "restart_window_secs", 300.0, "Restarts before that are forgotten.", lowest=1.0
    )
    command_line.float_flag(
        values,
        "min_replicas_share",
        0.5,
        "The run goes on without actors or workers that were given up while this share of them is "
        "left; 1 ends it with the first.",
        lowest=0.0,
        highest=1.0,
    )
    flags.DEFINE_bool(
        "preload",
        True,
        "Fork the roles from a process that has imported TensorFlow, which saves seconds and "
        "memory; --nopreload starts each afresh.",
        flag_values=values,
    )
    flags.DEFINE_enum(
        "launcher",
        "local",
        list(launchers.NAMES),
        "Where the roles run: this machine, steps of the Slurm job that this is run in, or nodes "
        "of a Ray cluster.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "ray_address",
        "",
        "host:port of the Ray cluster (default: RAY_ADDRESS, or the cluster that this machine is a "
        "node of).",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "resources",
        [],
        "What each process of a role has for itself on its node, such as learner=gpu:1,cpu:8 or "
        "replay=memory:64G or parameter_server=apart:1 (each on another node).",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "insecure_network",
        False,
        "Between machines, do without certificates and token: only in a network that you trust.",
        flag_values=values,
    )
    flags.DEFINE_bool(
        "requeue",
        False,
        "With Slurm: when its time limit is near (SIGUSR1), put the job into the queue again, to "
        "continue.",
        flag_values=values,
    )
    _several_flags(values)
    flags.DEFINE_bool("list", False, "List the gin files and leave.", flag_values=values)
    flags.DEFINE_bool(
        "verbose", False, "Keep the messages of TensorFlow in the roles' logs.", flag_values=values
    )
    return values


def _several_flags(values: flags.FlagValues) -> None:
    flags.DEFINE_list(
        "seeds",
        [],
        "One run for each of these seeds, in directories of --root_dir.",
        flag_values=values,
    )
    flags.DEFINE_multi_string(
        "sweep",
        [],
        "One run for each of these values, such as 'adam.learning_rate=1e-4,3e-4'; of several, for "
        "each combination, and with --seeds, for each seed.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "parallel",
        1,
        "With --seeds or --sweep: how many runs at once.",
        lower_bound=1,
        flag_values=values,
    )


def main(argv: Sequence[str]) -> int:
    """Parses `argv` (program name first) and trains; returns the exit code."""
    values = _flags()
    command_line.parse_gin_files(values, argv, _USAGE)
    if values.list:
        print("\n".join(_programs()))
        return EXIT_OK
    if not values.gin_file:
        names = "\n".join(f"  {name}" for name in _programs())
        raise ConfigurationError(f"--gin_file is missing; write a file's path or one of:\n{names}")
    training.prepare(values.verbose)
    settings = LauncherSettings(
        limits=Limits(
            max_restarts=values.max_restarts,
            restart_window_secs=values.restart_window_secs,
            min_replicas_share=values.min_replicas_share,
        ),
        stuck_after_secs=values.stuck_after_secs,
        verbose=values.verbose,
        allow_config_change=values.allow_config_change,
        preload=values.preload,
        resources=values.resources,
        insecure_network=values.insecure_network,
    )
    if values["seeds"].present and not values.seeds:
        raise ConfigurationError("--seeds names no seed; write such as --seeds=1,2,3")
    if values.seeds or values.sweep:
        return _train_several(values, settings)
    if values["parallel"].present:
        raise ConfigurationError("--parallel goes with --seeds or --sweep: there is one run only")
    return training.train(
        values.gin_file,
        values.gin_bindings,
        values.root_dir,
        settings,
        lambda root_dir: _command(values, argv[0], root_dir),
        lambda: _launcher(values),
        ReportWriter(),
    )


def _train_several(values: flags.FlagValues, settings: LauncherSettings) -> int:
    """Trains once for each seed and each combination of values."""
    from tfdrl.api.variants import variants

    found = variants(values.seeds, values.sweep)
    if values.launcher != "local":
        raise ConfigurationError(
            f"--launcher={values.launcher} runs one program at a time: give one job to each of "
            f"{', '.join(variant.name for variant in found)}"
        )
    _launcher(values)  # refuses flags that are for others
    from tfdrl.api import sweep

    root_dir = pathlib.Path(values.root_dir or run_directory.fresh(values.gin_file))
    return sweep.run(
        sweep.Sweep(
            values.gin_file, values.gin_bindings, found, root_dir, values.parallel, settings
        )
    )


def _launcher(values: flags.FlagValues) -> Launcher:
    """The launcher of the flags. Raises ConfigurationError for flags that it would not heed."""
    for name, heeded in _LAUNCHERS_OF.items():
        if values[name].present and values.launcher not in heeded:
            with_it = " or ".join(f"--launcher={launcher}" for launcher in heeded)
            cure = "leave it out"
            if values.launcher == "local":
                cure = (
                    "on one machine the processes share its cores, and CUDA_VISIBLE_DEVICES says "
                    "which GPUs are the learner's"
                )
            raise ConfigurationError(f"--{name} goes with {with_it}; {cure}")
    return launchers.launcher(values.launcher, values.requeue, values.ray_address)


def _command(values: flags.FlagValues, program_name: str, root_dir: pathlib.Path) -> list[str]:
    """What continues this run."""
    command = [printed_commands.program(pathlib.Path(program_name).name)]
    if program_name.endswith(".py"):
        module = ["-m", __spec__.name] if __spec__ else [program_name]
        command = [printed_commands.python(), *module]
    command += [f"--gin_file={name}" for name in values.gin_file]
    command += [f"--gin_bindings={binding}" for binding in values.gin_bindings]
    for name in _WATCHING:
        if not values[name].using_default_value:
            command += values[name].serialize().splitlines()
    return [*command, f"--root_dir={root_dir}"]


def _programs() -> list[str]:
    """A line for each gin file that trains something; those for other commands come last."""
    found = configuration.gin_programs()
    width = max(map(len, found))
    lines: dict[bool, list[str]] = {False: [], True: []}
    for name, text in found.items():
        about = textwrap.shorten(text, _LINE - width, placeholder=" ...")
        lines[configuration.is_measured(name)].append(f"{name:<{width}}  {about}")
    return [*lines[False], "", "To be measured (tfdrl-benchmark) or compared:", *lines[True]]


def console() -> None:
    """Entry point of the console script."""
    sys.exit(command_line.run("tfdrl train", main, sys.argv))


if __name__ == "__main__":
    console()
