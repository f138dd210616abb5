"""What Linux says of a process (CPU time, memory, children), and who looks at it meanwhile."""

from __future__ import annotations

import contextlib
import os
import pathlib
import threading
import time

from tfdrl.launch import process


def cpu_secs(pid: int) -> float:
    """CPU seconds that all threads of a process have used so far."""
    return time.clock_gettime((~pid << 3) | 2)  # the kernel's id of that process's CPU clock


def delayed_secs(pid: int) -> dict[int, float]:
    """Seconds that each thread of a process was ready to run and had no core, so far.

    By the kernel's id of the thread; empty where it does not count them.
    """
    found = {}
    for path in pathlib.Path(f"/proc/{pid}/task").glob("*/schedstat"):
        with contextlib.suppress(OSError, IndexError, ValueError):
            found[int(path.parent.name)] = 1e-9 * int(path.read_text().split()[1])
    return found


def rss_bytes(pid: int) -> int:
    """Memory of a process that is in use. Raises OSError if there is none."""
    pages = pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def pss_mb(pid: int) -> float:
    """The same in MB, shared pages divided among those who share them; 0 if there is none."""
    with contextlib.suppress(OSError):
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0


def machine_cpu_secs() -> float:
    """CPU seconds of everything that has run on this machine, and of its host in our place."""
    fields = pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    user, nice, system, _, _, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def children(pid: int) -> list[int]:
    """Those of its main thread. Raises OSError if there is no such process."""
    return list(map(int, pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()))


def flag(pid: int, name: str) -> str:
    """The value of a flag of its command line; "" if it has none. Raises OSError as `children`."""
    for argument in process.arguments_of(pid):
        key, _, value = argument.partition("=")
        if key == name:
            return value
    return ""


class Observer:
    """Looks at something again and again in a thread, until it is left or has seen enough."""

    def __init__(self, period_secs: float):
        self._period_secs, self._closed = period_secs, threading.Event()
        self._thread = threading.Thread(target=self._run, name="observer", daemon=True)

    def look(self) -> bool:
        """Looks once; returns whether that was enough."""
        raise NotImplementedError

    def __enter__(self) -> Observer:
        self._thread.start()
        return self

    def __exit__(self, *unused) -> None:
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(self._period_secs):
            if self.look():
                return
