"""The processes that a program is started as on this machine, and their commands."""

from __future__ import annotations

import contextlib
import os
import pathlib
import shlex
import sys
from collections.abc import Sequence

from tfdrl.errors import ConfigurationError
from tfdrl.launch import run_directory, summary
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
) -> list[Replica]:
    """Every process, in the order of starting, with its command and its log."""
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
            replicas.append(Replica(role, task, command, log))
    return replicas


def _list(found: Sequence[object]) -> str:
    return ",".join(map(str, found))


def announcement(program: Program, places: addresses.Addresses, root_dir: pathlib.Path) -> str:
    """What is printed before the first process starts: roles, addresses, how to watch."""
    lines = [f"{program.name} in {root_dir}"]
    for role in program.roles:
        at = f" at {', '.join(map(str, places.listeners[role.name]))}" if role.serves else ""
        lines.append(f"  {role.replicas} {role.name}{at}")
    lines.append(f"watch it: {shlex.join(summary.tensorboard(root_dir))}")
    return "\n".join(lines)
