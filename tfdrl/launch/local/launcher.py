"""The launcher of one machine, this one."""

from __future__ import annotations

import contextlib
import math
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from tfdrl.errors import ConfigurationError
from tfdrl.launch import gpus, open_files, run_directory
from tfdrl.launch.launcher import Start, Starter
from tfdrl.launch.local.addresses import THIS_MACHINE, free_ports
from tfdrl.launch.local.processes import ForkServers, FreshProcesses
from tfdrl.launch.placement import Node, Placement
from tfdrl.launch.supervisor import role_environment
from tfdrl.topology import Program, Role

#: What a forked process takes of its own that has used TensorFlow at all; a third
#: without.
_LEAST_BYTES = 60_000_000


class LocalLauncher:
    """A `tfdrl.launch.launcher.Launcher`: forks the roles, or starts them afresh."""

    is_local = True
    patient_signals: Sequence[int] = ()

    def __init__(self) -> None:
        self._gpus: list[gpus.Gpu] = []

    def nodes(self, program: Program) -> Sequence[Node]:
        """This machine.

        Raises ConfigurationError if it could never hold so many processes, or their connections, or
        lacks GPUs.
        """
        check_room(program)
        for role in program.roles:
            open_files.check_connections(program, role)
        self._gpus = gpus.of(program)
        return [THIS_MACHINE]

    def ports(self, start: Start, counts: Mapping[str, int]) -> Mapping[str, Iterator[int]]:
        """Free ones of this machine."""
        return {THIS_MACHINE.name: free_ports()}

    def environment(self, role: Role, task: int) -> Mapping[str, str]:
        """Replicas of a role that sees GPUs split them."""
        return gpus.share(role, task, self._gpus)

    def remarks(self, program: Program, placed: Placement) -> Sequence[str]:
        """Its GPUs, and what there is too much of for its cores."""
        return [*gpus.announcement(program, self._gpus), *crowding(program, _cores())]

    def starter(self, start: Start, notify: Callable[[str], None]) -> Starter:
        """Fork servers, on Linux, unless the run wants its processes afresh."""
        if not start.preload or sys.platform != "linux":
            return FreshProcesses()
        return ForkServers(
            start.program,
            start.configuration.modules,
            start.root_dir / run_directory.LOGS,
            role_environment(),
            quiet=start.quiet,
            notify=notify,
        )

    def stopped_by(self, number: int) -> str:
        """Nobody but its user starts a run again."""
        return ""


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


def crowding(program: Program, cores: int) -> list[str]:
    """A line for each role of which there are more processes than cores: they get parts of one."""
    return [
        f"  NOTE: {role.replicas} {role.name} processes share {cores} core{'s' * (cores > 1)}: "
        "fewer, with more environments each, would do the same in larger batches"
        for role in program.roles
        if role.replicas > cores
    ]
