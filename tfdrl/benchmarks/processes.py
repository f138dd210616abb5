"""Processes that a benchmark starts and ends: workers, which are told what to do, and servers."""

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
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from tfdrl.benchmarks.measuring import Rounds
from tfdrl.benchmarks.proc import cpu_secs, rss_bytes
from tfdrl.errors import TfdrlError, UnavailableError
from tfdrl.launch import exits
from tfdrl.launch.local.fork_client import start_afresh
from tfdrl.launch.replica import Replica
from tfdrl.launch.supervisor import role_environment
from tfdrl.topology import Address

#: From the start of a process to its first answer, beside the turns that it takes.
START_LIMIT_SECS = 180.0
_SERVER_LIMIT_SECS = 120.0
_EXIT_LIMIT_SECS = 10.0


class Server(NamedTuple):
    """A server that listens."""

    address: Address
    pid: int


class Job(NamedTuple):
    """What a worker is given.

    Attributes:
      config: settings of the architecture, such as `Apex`.
      seed: of the experiment.
      digest: of the configuration.
      directory: for scratch files.
      rounds: how often and how long.
      servers: that were started for it.
    """

    config: Any
    seed: int
    digest: str
    directory: pathlib.Path
    rounds: Rounds
    servers: Sequence[Server] = ()

    @property
    def replay(self) -> Address:
        """The address of the first server."""
        return self.servers[0].address

    @property
    def server_pid(self) -> int | None:
        """The process of the first server, if there is one."""
        return self.servers[0].pid if self.servers else None


class Worker:
    """A process that calls one function of ours (`tfdrl.benchmarks.worker`), seen from here."""

    def __init__(self, popen: subprocess.Popen, connection: Connection, name: str):
        self._popen, self._connection, self._name = popen, connection, name

    def tell(self, value: Any) -> None:
        """What a generator gets for its last answer."""
        with contextlib.suppress(OSError):  # `hear` says why it has ended
            self._connection.send(value)

    def hear(self, limit_secs: float) -> Any:
        """The next answer. Raises UnavailableError after the limit, TfdrlError if it has failed."""
        if not self._connection.poll(limit_secs):
            raise UnavailableError(f"{self._name} took more than {limit_secs:.0f} s")
        try:
            return self._connection.recv()
        except (EOFError, OSError):
            how = exits.describe(self._popen.wait(_EXIT_LIMIT_SECS))
            raise TfdrlError(f"{self._name} failed ({how}); see above") from None

    @property
    def cpu_secs(self) -> float:
        """CPU seconds of all its threads so far."""
        return cpu_secs(self._popen.pid)

    @property
    def rss_mb(self) -> float:
        """Its memory in use."""
        return rss_bytes(self._popen.pid) / 1e6


@contextlib.contextmanager
def worker(function: str, *given: Any) -> Iterator[Worker]:
    """A process that calls "module:name"; `given` is what `tfdrl.benchmarks.worker` wants."""
    ours, theirs = socket.socketpair()
    with theirs, Connection(ours.detach()) as connection:
        number = theirs.fileno()
        command = [sys.executable, "-m", "tfdrl.benchmarks.worker", function, str(number)]
        with _process(command, sys.stderr, [number]) as popen:
            theirs.close()  # or its end would not be noticed here
            connection.send(given)
            yield Worker(popen, connection, function.rpartition(":")[2])


@contextlib.contextmanager
def role(replica: Replica) -> Iterator[subprocess.Popen]:
    """A role of the program, in a process of its own."""
    replica.log.parent.mkdir(parents=True, exist_ok=True)
    with replica.log.open("wb") as log:
        log.write(b"\n")  # `exits.tail` leaves out a log's first line
        log.flush()
        with _process(replica.command, log) as popen:
            yield popen


@contextlib.contextmanager
def server(replica: Replica, address: Address) -> Iterator[Server]:
    """A serving role of the program, once it listens."""
    with role(replica) as popen:
        deadline_secs = time.monotonic() + _SERVER_LIMIT_SECS
        while not _listens(address):
            if popen.poll() is not None or time.monotonic() > deadline_secs:
                words = replica.name.replace("_", " ")
                tail = exits.tail(replica.log)
                raise UnavailableError(f"the {words} did not come up:\n{tail}")
            time.sleep(0.2)
        yield Server(address, popen.pid)


@contextlib.contextmanager
def _process(command: Sequence[str], log, pass_fds: Sequence[int] = ()):
    """A process, which does not outlive the block or us; nor does what it has started."""
    popen = start_afresh(command, log, role_environment(), pass_fds)
    try:
        yield popen
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(popen.pid, signal.SIGKILL)  # unreaped, the id is still its own
        popen.wait()


def _listens(address: Address) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex((address.host, address.port)) == 0
