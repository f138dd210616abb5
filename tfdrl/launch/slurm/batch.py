"""The file that `sbatch` takes: a job of as many nodes, cores and GPUs as a program wants."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tfdrl.errors import ConfigurationError
from tfdrl.launch.placement import Node, place
from tfdrl.topology import Program, Resources

_TIME = re.compile(r"(\d+-)?\d+(:\d\d){0,2}")
#: Before the time limit: a learner's checkpoint, and a large replay's, take so long.
_WARNING_SECS = 300


class BatchSettings(NamedTuple):
    """What the gin file does not say.

    Attributes:
      name: of the job.
      directory: that the command runs in.
      nodes: how many.
      time: limit, as Slurm writes it: 24:00:00, 2-12.
      memory: of each node, such as 64G; empty: all of it.
      partition: empty: the cluster's default.
      requeue: preemption, a failed node and the time limit put the job into the queue again.
    """

    name: str
    directory: str
    nodes: int = 1
    time: str = "24:00:00"
    memory: str = ""
    partition: str = ""
    requeue: bool = True


class _Shape(NamedTuple):
    cpus: int
    gpus: int


def text(
    program: Program,
    wanted: Mapping[str, Resources],
    settings: BatchSettings,
    command: Sequence[str],
) -> str:
    """The file.

    Args:
      program: that is run.
      wanted: what a replica of each role wants, by the role's name.
      settings: of the job.
      command: that trains, without --launcher.

    Raises ConfigurationError for a time that Slurm would not take.
    """
    if not _TIME.fullmatch(settings.time):
        raise ConfigurationError(f"--time={settings.time!r}: write it as 24:00:00 or 2-12:00:00")
    shape = shape_of(program, wanted, settings.nodes)
    options = {
        "job-name": settings.name,
        "chdir": settings.directory,
        "nodes": settings.nodes,
        "ntasks-per-node": 1,
        "cpus-per-task": shape.cpus,
        "gpus-per-node": shape.gpus or "",
        "mem": settings.memory or "0",
        "time": settings.time,
        "partition": settings.partition,
        "signal": f"B:USR1@{_WARNING_SECS}",
        "output": "%x-%j.out",
        "open-mode": "append",
    }
    lines = [f"#SBATCH --{name}={value}" for name, value in options.items() if value != ""]
    lines.append("#SBATCH --no-kill")  # a node that fails takes its own roles along, no others
    lines.append("#SBATCH --requeue" if settings.requeue else "#SBATCH --no-requeue")
    train = [*command, "--launcher=slurm", *(["--requeue"] if settings.requeue else [])]
    # Not a child of the shell's: the warning before the time limit goes to this process alone.
    return "\n".join(["#!/bin/bash", *lines, "", f"exec {shlex.join(train)}", ""])


def shape_of(program: Program, wanted: Mapping[str, Resources], nodes: int) -> _Shape:
    """The fewest cores, and GPUs, of each of so many equal nodes that hold the program."""
    sums = {
        field: sum(role.replicas * getattr(wanted[role.name], field) for role in program.roles)
        for field in ("cpus", "gpus")
    }
    gpus = -(-sums["gpus"] // nodes)
    cpus = max(1, -(-sums["cpus"] // nodes))
    # Whatever is left over on the nodes by large roles, twice the largest of them makes up for.
    largest = max((wanted[role.name].cpus for role in program.roles), default=1)
    most_gpus = max(gpus, max(wanted[role.name].gpus for role in program.roles))
    for more_gpus in range(gpus, most_gpus + 1):
        for more in range(2 * largest + 1):
            equal = [Node(f"{n}", f"{n}", cpus + more, more_gpus) for n in range(nodes)]
            try:
                place(program, wanted, equal)
                return _Shape(cpus + more, more_gpus)
            except ConfigurationError as error:
                wrong = error
    raise ConfigurationError(f"--nodes={nodes}: {wrong}")
