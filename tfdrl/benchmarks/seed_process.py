"""A child process of SEED's benchmark, told what to do line by line."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence

from tfdrl.benchmarks.measuring import cpu_secs, rss_bytes
from tfdrl.errors import TfdrlError
from tfdrl.launch.process import LAUNCHER_VARIABLE


class Child:
    """A Python module that reads commands from stdin and answers on stdout, a line each."""

    def __init__(self, module: str, arguments: Sequence[str]):
        self._popen = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, LAUNCHER_VARIABLE: str(os.getpid()), "PYTHONUNBUFFERED": "1"},
        )
        self._name = module

    def tell(self, line: str) -> None:
        """Sends a command."""
        self._popen.stdin.write(line + "\n")
        self._popen.stdin.flush()

    def hear(self) -> list[str]:
        """The words of the answer. Raises TfdrlError if the process ended."""
        words = self._popen.stdout.readline().split()
        if not words:
            raise TfdrlError(f"{self._name} ended (exit code {self._popen.wait(10)}); see above")
        return words

    @property
    def cpu_secs(self) -> float:
        """CPU seconds of all its threads so far."""
        return cpu_secs(self._popen.pid)

    @property
    def rss_mb(self) -> float:
        """Its memory in use."""
        return rss_bytes(self._popen.pid) / 1e6

    def kill(self) -> None:
        """Ends it."""
        self._popen.kill()
        self._popen.wait()


@contextlib.contextmanager
def service(
    kind: str, gin: Sequence[str], module: str, clients: Sequence[Sequence[str]]
) -> Iterator[tuple[Child, list[Child]]]:
    """A server and its clients, all ready; ends them.

    Args:
      kind: of the server, as `seed_server` takes it.
      gin: flags that name files and bindings.
      module: of the clients.
      clients: further arguments of each.
    """
    children: list[Child] = []
    try:
        server = Child("tfdrl.benchmarks.seed_server", [f"--kind={kind}", *gin])
        children.append(server)
        port, digest = server.hear()
        told = [f"--server=127.0.0.1:{port}", f"--experiment={digest}", *gin]
        for arguments in clients:
            children.append(Child(module, [*told, *arguments]))
        for child in children[1:]:
            child.hear()
        yield server, children[1:]
    finally:
        for child in children:
            child.kill()
