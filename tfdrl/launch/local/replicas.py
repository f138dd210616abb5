"""The processes that a program is started as on this machine, and their commands."""

from __future__ import annotations

import pathlib
import shlex
import sys
from collections.abc import Sequence

from tfdrl.launch import run_directory, summary
from tfdrl.launch.local import addresses
from tfdrl.launch.replica import Replica
from tfdrl.topology import Program

_ROLE_MODULE = "tfdrl.launch.role"


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
