"""How many files a process may open: each connection of a role that serves is one."""

from __future__ import annotations

import contextlib
import resource

from tfdrl.errors import ConfigurationError
from tfdrl.rpc import channels
from tfdrl.topology import Program, Role

#: Enough for every program; some libraries close all that there may be in each child.
_MOST_FILES = 1 << 16
_WATCHERS = 8


def raise_limit() -> None:
    """Lets this process, and what it starts, open as many as the system allows, within reason.

    What `ulimit -n` says at first, 1,024 on most machines, is a default: each process may raise it
    to the hard limit, often a million.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # some systems have another limit, too
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def check_connections(program: Program, role: Role) -> None:
    """Raises ConfigurationError if more connect to a replica of this role than it can have."""
    clients = clients_of(program, role)
    most = channels.most_connections()
    if clients <= most:
        return
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == channels.MOST_CONNECTIONS:
        cure = "start fewer, with more environments each"
    else:
        cure = (
            f"half of the {files:,} files that it may open; raise that limit (`ulimit -Hn`, "
            "limits.conf, LimitNOFILE= of systemd, --ulimit nofile= of Docker), or start fewer"
        )
    raise ConfigurationError(
        f"{clients:,} connections come to each {role.name} of {program.name}, which "
        f"takes {most:,}: {cure}"
    )


def clients_of(program: Program, role: Role) -> int:
    """How many processes, and threads of theirs, connect to a replica of a role that serves.

    All of them: who has one of several replicas may ask each of them. And some that only look: the
    launcher, panels, health checks.
    """
    if not role.serves:
        return 0
    processes = sum(r.replicas for r in program.roles if role.name in r.talks_to)
    threads = sum(count for _, count in program.threads) if role.name == program.chief else 0
    return processes + threads + _WATCHERS
