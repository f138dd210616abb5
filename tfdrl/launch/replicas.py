"""The processes that a program is started as, and their commands."""

from __future__ import annotations

import pathlib
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence

from tfdrl.launch import run_directory, summary
from tfdrl.launch.addresses import Addresses
from tfdrl.launch.credentials import Credentials
from tfdrl.launch.placement import Placement
from tfdrl.launch.replica import Replica
from tfdrl.topology import Address, Program, Role

_ROLE_MODULE = "tfdrl.launch.role"
_EVERYWHERE = "0.0.0.0"


def gin_flags(gin_files: Sequence[str], gin_bindings: Sequence[str]) -> list[str]:
    """The flags that say what to run."""
    flags = [f"--gin_file={name}" for name in gin_files]
    return flags + [f"--gin_bindings={binding}" for binding in gin_bindings]


def common_arguments(
    root_dir: pathlib.Path,
    gin_files: Sequence[str],
    gin_bindings: Sequence[str],
    verbose: bool,
) -> list[str]:
    """The flags that all roles of a run have."""
    arguments = [f"--root_dir={root_dir}", *gin_flags(gin_files, gin_bindings)]
    return arguments + (["--verbose"] if verbose else [])


def replicas_of(
    program: Program,
    placed: Placement,
    places: Addresses,
    root_dir: pathlib.Path,
    arguments: Sequence[str],
    credentials: Credentials,
    environment: Callable[[Role, int], Mapping[str, str]] = lambda role, task: {},
) -> list[Replica]:
    """Every process, in the order of starting, with its node, its command and its log.

    `environment(role, task)` are variables of its own.
    """
    replicas = []
    for role in program.roles:
        told = [f"--{to}={_list(places.listeners[to])}" for to in role.talks_to]
        if role.name in places.clusters:
            told.append(f"--cluster={_list(places.clusters[role.name])}")
        told += credentials.flags(program, role)
        for task in range(role.replicas):
            listen = [_listen(places.listeners[role.name][task])] if role.serves else []
            command = [sys.executable, "-m", _ROLE_MODULE, f"--role={role.name}", f"--task={task}"]
            log = root_dir / run_directory.LOGS / f"{role.name}-{task}.log"
            command += [*listen, *told, *arguments]
            node, own = placed[role.name][task].name, environment(role, task)
            replicas.append(Replica(role, task, command, log, own, node))
    return replicas


def _listen(address: Address) -> str:
    # A node's own name may be the loopback's for itself.
    return f"--listen={address if address.is_loopback else Address(_EVERYWHERE, address.port)}"


def _list(found: Sequence[object]) -> str:
    return ",".join(map(str, found))


def announcement(
    program: Program, places: Addresses, root_dir: pathlib.Path, remarks: Sequence[str] = ()
) -> str:
    """What is printed before the first process starts: roles, addresses, how to watch."""
    lines = [f"{program.name} in {root_dir}"]
    for role in program.roles:
        at = f" at {', '.join(map(str, places.listeners[role.name]))}" if role.serves else ""
        lines.append(f"  {role.replicas} {role.name}{at}")
    lines += remarks
    lines.append(f"watch it: {shlex.join(summary.tensorboard(root_dir))}")
    return "\n".join(lines)
