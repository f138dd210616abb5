"""Predicts how fast a program would be on machines that one does not have."""

from __future__ import annotations

import json
import os
import pathlib
import re
import sys
from collections.abc import Sequence

from absl import flags

from tfdrl import configuration
from tfdrl.errors import EXIT_OK, ConfigurationError
from tfdrl.experiment import Experiment
from tfdrl.launch import command_line, process
from tfdrl.planning import costs, machines, page, prediction, sweep
from tfdrl.planning.site import Stragglers

_USAGE = """Predicts a program's speed on machines, from what its parts cost.

  tfdrl-benchmark --costs=costs.json --gin_file=seed/atari_pong_gpu.gin
  tfdrl-plan --gin_file=seed/atari_pong_gpu.gin --costs=costs.json \\
      --machines='1 x learner: 16 cores, H200; 40 x actor: 32 cores; network 10 Gbit/s'
  tfdrl-plan --gin_file=impala/atari_pong.gin --machines='1 x all: 16 cores' \\
      --cost=environment.step=345us --cost=inference=0.9ms --cost=training.step=4.1ms
  tfdrl-plan ... --sweep=actors=1..1000 --plot=actors.svg

Machines of a role hold one of its processes for each core, or as many as is said: '40 x actor: 32
cores, 20 actors, $1.50/h'. Roles without machines are on those of the first group. A cost is an
elapsed time, with the CPU time in it where that is another (10ms/0.1ms) and the relative standard
deviation of single ones where they vary (10ms~0.3). Exit codes: 0 planned, 2 wrong
configuration."""


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    command_line.gin_flags(values)

    def text(name: str, about: str) -> None:
        flags.DEFINE_string(name, "", about, flag_values=values)

    text("machines", "What there is (default: '1 x all' with the cores of this machine).")
    text("costs", "JSON of costs, as tfdrl-benchmark --costs writes it.")
    flags.DEFINE_multi_string(
        "cost", [], "One cost, such as inference.256=0.92ms or item.bytes=28KB.", flag_values=values
    )
    text("sweep", "More and more of a role, such as actors=1..1000 or actors=1,2,4.")
    text("plot", "File for the sweep's curve: .svg, .png or .pdf.")
    text("stragglers", "Slow actors, such as 2x20: two, which take 20 times as long.")
    text("json", "File for all figures.")
    flags.DEFINE_integer(
        "frames_per_step",
        None,
        "Environment frames of a step (default: as the environment says).",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "events", 400_000, "Simulated at most.", lower_bound=1000, flag_values=values
    )
    return values


def main(argv: Sequence[str]) -> int:
    """Parses `argv` (program name first), simulates, prints; returns the exit code."""
    values = _flags()
    command_line.parse_gin_files(values, argv, _USAGE)
    if not values.gin_file:
        raise ConfigurationError("--gin_file is missing; give one, such as impala/atari_pong.gin")
    if values.plot and not values.sweep:
        raise ConfigurationError("--plot draws a sweep; give one, such as --sweep=actors=1..1000")
    for name in ("plot", "json"):
        path = getattr(values, name)
        if path and not pathlib.Path(path).resolve().parent.is_dir():
            raise ConfigurationError(f"--{name}={path}: there is no such directory")
        if path and pathlib.Path(path).is_dir():
            raise ConfigurationError(f"--{name}={path} is a directory; name a file in it")
    process.silence()
    configuration.load(values.gin_file, values.gin_bindings, tensorflow=False)
    config = Experiment.from_gin().architecture
    program = config.program()
    subject = prediction.Subject(
        program,
        config,
        values.frames_per_step or _frames_per_step(config),
        costs.read(values.costs or None, values.cost),
        _stragglers(values.stragglers),
        values.events,
    )
    there = machines.parse(
        values.machines or f"1 x all: {len(os.sched_getaffinity(0))} cores", program
    )
    found = (_sweep if values.sweep else _plan)(subject, there, values)
    if values.json:
        _write(values.json, json.dumps(found, indent=2) + "\n")
    return EXIT_OK


def _write(path: str, text: str) -> None:
    try:
        pathlib.Path(path).write_text(text)
    except OSError as error:
        raise ConfigurationError(f"--json={path} cannot be written: {error.strerror}") from None


def _plan(subject: prediction.Subject, there: machines.Machines, values) -> dict:
    found = prediction.predict(subject, there)
    more = prediction.next_machines(subject, there, found)
    name, per_step = subject.program.name, subject.frames_per_step
    print(page.as_text(name, found, more, subject.costs, per_step), flush=True)
    return page.as_json(found, more, subject.costs)


def _sweep(subject: prediction.Subject, there: machines.Machines, values) -> dict:
    asked = sweep.parse(values.sweep, subject)
    found = sweep.run(asked, subject, there)
    print(page.table(asked.role, found), flush=True)
    if values.plot:
        sweep.draw(asked, found, pathlib.Path(values.plot))
    return {str(count): page.as_json(one, {}, subject.costs) for count, one in found}


def _frames_per_step(config) -> int:
    """Of the environment, of which one is made."""
    with config.environment(num_envs=1, training=True, seed=0) as environment:
        return environment.frames_per_step


def _stragglers(text: str) -> Stragglers:
    if not text:
        return Stragglers()
    matched = re.fullmatch(r"(\d+)x(\d+(?:\.\d+)?)", text)
    if not matched or float(matched[2]) < 1.0:
        raise ConfigurationError(
            f"--stragglers={text}: write how many and how much slower, such as 2x20"
        )
    return Stragglers(int(matched[1]), float(matched[2]))


def console() -> None:
    """Entry point of the console script."""
    sys.exit(command_line.run("tfdrl plan", main, sys.argv))


if __name__ == "__main__":
    console()
