"""Servers that a benchmark measures against: processes that it starts and ends."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from tfdrl.benchmarks.settings import BenchmarkSettings, gin_arguments, say
from tfdrl.errors import TfdrlError, UnavailableError
from tfdrl.launch import exits
from tfdrl.launch.process import LAUNCHER_VARIABLE
from tfdrl.topology import Address

_SERVER_LIMIT_SECS = 60.0


class Server(NamedTuple):
    """A server that listens."""

    address: Address
    pid: int


def replay_server(settings: BenchmarkSettings, free: Sequence[str], directory: pathlib.Path):
    """The replay role of the same gin file, in a process of its own."""
    address = Address("127.0.0.1", _free_port())
    return role_server(settings, free, "replay", 0, address, directory)


@contextlib.contextmanager
def role_server(
    settings: BenchmarkSettings,
    free: Sequence[str],
    role: str,
    task: int,
    address: Address,
    directory: pathlib.Path,
) -> Iterator[Server]:
    """A serving role of the same gin file, in a process of its own, once it listens."""
    words = role.replace("_", " ")
    say(f"starting a {words}")
    log = directory.with_name(f"{directory.name}-{role}-{task}.log")
    arguments = [f"--role={role}", f"--task={task}", f"--listen={address}"]
    arguments.append(f"--root_dir={directory}")
    command = ["tfdrl.launch.role", *arguments, *gin_arguments(settings, free)]
    with start_process(command, log, stderr=subprocess.STDOUT) as process:
        deadline = time.monotonic() + _SERVER_LIMIT_SECS
        while not _listens(address):
            if process.poll() is not None or time.monotonic() > deadline:
                raise UnavailableError(f"the {words} did not come up:\n{exits.tail(log)}")
            time.sleep(0.2)
        yield Server(address, process.pid)


@contextlib.contextmanager
def start_process(command: Sequence[str], log: pathlib.Path, stderr) -> Iterator[subprocess.Popen]:
    """A Python module in a process of its own, which does not outlive the block or us."""
    with log.open("wb") as out:
        out.write(b"\n")  # `supervisor.tail` leaves out a log's first line
        out.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=stderr,
            env={**os.environ, LAUNCHER_VARIABLE: str(os.getpid()), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # unreaped, the id is still its own
        process.wait()


def wait_for(process: subprocess.Popen, limit_secs: float, what: str, log: pathlib.Path) -> None:
    """Waits for its end. Raises UnavailableError after the limit, TfdrlError if it has failed."""
    try:
        code = process.wait(timeout=limit_secs)
    except subprocess.TimeoutExpired:
        raise UnavailableError(f"{what} took more than {limit_secs:.0f} s") from None
    if code:
        raise TfdrlError(f"{what} failed ({exits.describe(code)}); see above\n{exits.tail(log)}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _listens(address: Address) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((address.host, address.port)) == 0
