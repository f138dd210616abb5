"""The processes that a program is started as on this machine, and their commands."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import shlex
import sys
from collections.abc import Sequence

from tfdrl.errors import ConfigurationError
from tfdrl.launch import gpus, run_directory, summary
from tfdrl.launch.local import addresses
from tfdrl.launch.replica import Replica
from tfdrl.topology import Program

_ROLE_MODULE = "tfdrl.launch.role"
#: What a forked process takes of its own that has used TensorFlow at all; a third
#: without.
_LEAST_BYTES = 60_000_000


def check_room(program: Program) -> None:
    """Raises ConfigurationError for more processes than this machine's memory could ever hold."""
    needed = sum(
        role.replicas * (_LEAST_BYTES if role.needs_tensorflow else _LEAST_BYTES // 3)
        for role in program.roles
    )
    memory = _memory_bytes()
    if needed > memory:
        counts = ", ".join(f"{role.replicas} {role.name}" for role in program.roles)
        raise ConfigurationError(
            f"{program.name} has too many processes for this machine: {counts} need "
            f"{needed / 1e9:,.0f} GB of memory at the very least, and there are "
            f"{memory / 1e9:,.0f} GB; have fewer, with more environments each, or more machines"
        )


def _memory_bytes() -> int:
    """Of the machine, or what the control group (a container's limit) allows of it."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with contextlib.suppress(OSError, ValueError):  # "max", or no control groups
        memory = min(memory, int(pathlib.Path("/sys/fs/cgroup/memory.max").read_text()))
    return memory


def _cores() -> int:
    """Of the machine, or what this process may use of them."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):  # "max", or no control groups
        quota, period = pathlib.Path("/sys/fs/cgroup/cpu.max").read_text().split()
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return cores


def common_arguments(
    root_dir: pathlib.Path,
    gin_files: Sequence[str],
    gin_bindings: Sequence[str],
    verbose: bool,
) -> list[str]:
    """The flags that all roles of a run have."""
    arguments = [f"--root_dir={root_dir}"]
    arguments += [f"--gin_file={name}" for name in gin_files]
    arguments += [f"--gin_bindings={binding}" for binding in gin_bindings]
    return arguments + (["--verbose"] if verbose else [])


def replicas_of(
    program: Program,
    places: addresses.Addresses,
    root_dir: pathlib.Path,
    arguments: Sequence[str],
    token_file: pathlib.Path,
    found: Sequence[gpus.Gpu] = (),
) -> list[Replica]:
    """Every process, in the order of starting, with its command, its log and its GPUs."""
    replicas = []
    with_token = {role.name for role in program.roles if role.encrypts}
    for role in program.roles:
        told = [f"--{to}={_list(places.listeners[to])}" for to in role.talks_to]
        if role.name in places.clusters:
            told.append(f"--cluster={_list(places.clusters[role.name])}")
        if with_token & {role.name, *role.talks_to}:
            told.append(f"--token_file={token_file}")
        for task in range(role.replicas):
            listen = [f"--listen={places.listeners[role.name][task]}"] if role.serves else []
            command = [sys.executable, "-m", _ROLE_MODULE, f"--role={role.name}", f"--task={task}"]
            log = root_dir / run_directory.LOGS / f"{role.name}-{task}.log"
            command += [*listen, *told, *arguments]
            share = gpus.share(role, task, found)
            replicas.append(Replica(role, task, command, log, environment=share))
    return replicas


def _list(found: Sequence[object]) -> str:
    return ",".join(map(str, found))


def announcement(
    program: Program,
    places: addresses.Addresses,
    root_dir: pathlib.Path,
    found: Sequence[gpus.Gpu] = (),
) -> str:
    """What is printed before the first process starts: roles, addresses, GPUs, how to watch."""
    lines = [f"{program.name} in {root_dir}"]
    for role in program.roles:
        at = f" at {', '.join(map(str, places.listeners[role.name]))}" if role.serves else ""
        lines.append(f"  {role.replicas} {role.name}{at}")
    lines += gpus.announcement(program, found)
    lines += crowding(program, _cores())
    lines.append(f"watch it: {shlex.join(summary.tensorboard(root_dir))}")
    return "\n".join(lines)


def crowding(program: Program, cores: int) -> list[str]:
    """A line for each role of which there are more processes than cores: they get parts of one."""
    return [
        f"  NOTE: {role.replicas} {role.name} processes share {cores} core{'s' * (cores > 1)}: "
        "fewer, with more environments each, would do the same in larger batches"
        for role in program.roles
        if role.replicas > cores
    ]
