"""What the threads of one process use: CPU time, and the interpreter's lock.

CPU time is what the kernel counts for each thread, in ticks of 10 ms. Who holds the lock cannot be
known from within: a thread that asks needs it. So py-spy (an extra of tfdrl, `profile`) looks at
the process's memory a hundred times a second, without stopping it. Without py-spy there are no
figures of the lock.
"""

from __future__ import annotations

import collections
import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
from typing import NamedTuple

from tfdrl.benchmarks.measuring import say
from tfdrl.launch.thread_names import LENGTH

MAIN, POOLS = "main thread", "threads that are not Python's"
_SAMPLES_PER_SECOND = 100
_EXIT_LIMIT_SECS = 20.0
_NAME = re.compile(r"thread \([^)]*\): ([^;]*)")


class ThreadUsage(NamedTuple):
    """Threads of one name: cores used, and the share of time that they held the lock, if known."""

    cores: float
    lock_share: float | None


def cpu_secs_by_thread(pid: int) -> dict[str, float]:
    """CPU seconds by thread of Python; those of TensorFlow's and gRPC's own threads are one sum.

    The threads bear names if `show_thread_names` was called there. Raises OSError if there is no
    such process.
    """
    found: dict[str, float] = collections.Counter()
    process_name = pathlib.Path(f"/proc/{pid}/comm").read_text().strip()
    for path in pathlib.Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has ended
            name, _, fields = (path / "stat").read_text().partition("(")[2].rpartition(") ")
            user, system = map(int, fields.split()[11:13])
            found[_group(name, process_name, int(path.name) == pid)] += user + system
    return {name: ticks / os.sysconf("SC_CLK_TCK") for name, ticks in found.items()}


def _group(name: str, process_name: str, is_main: bool) -> str:
    if is_main:
        return MAIN
    is_native = name == process_name or name.startswith(("event_engine", "grpc_", "lifeguard"))
    return POOLS if is_native else name


class LockSampler:
    """Samples who holds a process's interpreter lock, from its making until `shares`."""

    def __init__(self, pid: int):
        self._directory = tempfile.TemporaryDirectory(prefix="tfdrl-lock-")
        self._file = pathlib.Path(self._directory.name) / "samples"
        self._process = None
        py_spy = shutil.which("py-spy")
        if py_spy is None:
            say("no figures of the lock without py-spy: pip install 'tfdrl[profile]'")
            return
        options = ["--gil", "--nonblocking", "--threads", "--format=raw", "--duration=unlimited"]
        options += [f"--rate={_SAMPLES_PER_SECOND}", f"--output={self._file}", f"--pid={pid}"]
        self._process = subprocess.Popen(
            [py_spy, "record", *options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
        )

    def shares(self, secs: float) -> dict[str, float]:
        """Of these seconds since the making, by thread; empty if nothing could be sampled."""
        if self._process is None:
            return {}
        self._process.send_signal(signal.SIGINT)
        try:
            _, complaint = self._process.communicate(timeout=_EXIT_LIMIT_SECS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            _, complaint = self._process.communicate()
        if not self._file.exists():
            say(f"py-spy could not sample the learner: {complaint.decode(errors='replace')[-300:]}")
            return {}
        counts = counts_of(self._file.read_text())
        return {name: count / (secs * _SAMPLES_PER_SECOND) for name, count in counts.items()}

    def close(self) -> None:
        """Ends the sampling."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.communicate()
        self._directory.cleanup()


def counts_of(samples: str) -> dict[str, int]:
    """Samples by thread, from py-spy's lines "thread (7): name;frame;frame 12"."""
    counts: dict[str, int] = collections.Counter()
    for line in samples.splitlines():
        stack, _, count = line.rpartition(" ")
        if found := _NAME.match(stack):
            name = found[1].strip()
            counts[MAIN if name == "MainThread" else name[:LENGTH]] += int(count)
    return dict(counts)
