"""A child process of SEED's benchmark, told what to do line by line."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence

from tfdrl.benchmarks.measuring import cpu_secs
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
        pages = pathlib.Path(f"/proc/{self._popen.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def kill(self) -> None:
        """Ends it."""
        self._popen.kill()
        self._popen.wait()
