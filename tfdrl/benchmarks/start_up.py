"""What a start costs: CPU time, wall time and memory, with forked roles and with fresh ones.

Of each start: `experiment.max_learner_steps = 1`, the whole command. The unit is ONE import of
TensorFlow, TF-Agents and Reverb, measured before and after, so that figures of machines compare.
"""

from __future__ import annotations

import contextlib
import importlib.util
import operator
import os
import pathlib
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import NamedTuple

from tfdrl.benchmarks.measuring import cpu_secs
from tfdrl.benchmarks.page import Figure, Section
from tfdrl.errors import TfdrlError, UnavailableError
from tfdrl.launch import run_directory
from tfdrl.topology import Program

_IMPORT = "import tensorflow, tf_agents, reverb"
_IMPORTS = 3  # before the starts, and after them
_PERIOD_SECS = 0.1
_LIMIT_SECS = 300.0
#: Written by tfdrl.launch.role when a role's function is called.
_BEGINS = re.compile(r"begins, after ([0-9.]+) CPU seconds of its process")


class Cost(NamedTuple):
    """CPU and wall seconds of something."""

    cpu_secs: float
    wall_secs: float


class Start(NamedTuple):
    """One start.

    called     until every role's function has been called
    whole      of the command, to its end
    memory_mb  the most that all processes had together: proportional set size
    """

    called: Cost
    whole: Cost
    memory_mb: float


def section(
    program: Program, gin_arguments: Sequence[str], directory: pathlib.Path, rounds: int
) -> Section:
    """Measures `rounds` starts of each kind in turns; medians.

    Raises:
      TfdrlError: a start failed or took too long.
    """
    imports = [_import() for _ in range(_IMPORTS)]
    found: dict[bool, list[Start]] = {True: [], False: []}
    for number in range(rounds):
        for preload in (True, False):
            place = directory / f"start-{number}-{preload}"
            found[preload].append(_start(program, gin_arguments, place, preload))
            print(f"  start: round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    imports += [_import() for _ in range(_IMPORTS)]
    one = Cost(*(statistics.median(values) for values in zip(*imports)))
    figures = [
        Figure("one import", one.cpu_secs, "CPU s"),
        Figure("one import", one.wall_secs, "s"),
    ]
    for preload, words in ((True, "forked roles"), (False, "fresh roles")):
        figures += _figures(found[preload], one, words)
    return Section("start (in imports: of TensorFlow, TF-Agents and Reverb, once)", figures)


def _figures(starts: Sequence[Start], one: Cost, words: str) -> list[Figure]:
    def median(value):
        return statistics.median(map(value, starts))

    costs = {"all functions called": "called", "first learner step and end": "whole"}
    kinds = {"CPU": "cpu_secs", "wall": "wall_secs"}
    figures = []
    for what, cost in costs.items():
        for kind, secs in kinds.items():
            value = median(operator.attrgetter(f"{cost}.{secs}")) / getattr(one, secs)
            figures.append(Figure(f"{words}: {what}, {kind}", value, "imports"))
    memory = median(operator.attrgetter("memory_mb"))
    return [*figures, Figure(f"{words}: memory (PSS) of all processes", memory, "MB")]


def _import() -> Cost:
    begin_secs = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, "-c", _IMPORT], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, code, usage = os.wait4(child.pid, 0)
    child.returncode = code
    if code:
        raise TfdrlError(f"{_IMPORT!r} failed")
    return Cost(usage.ru_utime + usage.ru_stime, time.perf_counter() - begin_secs)


def _start(
    program: Program, gin_arguments: Sequence[str], root_dir: pathlib.Path, preload: bool
) -> Start:
    is_checkout = importlib.util.find_spec("binaries") is not None
    module = "binaries.train" if is_checkout else "tfdrl.binaries.train"
    command = [sys.executable, "-m", module, *gin_arguments]
    command += ["--gin_bindings=experiment.max_learner_steps = 1", f"--root_dir={root_dir}"]
    command.append("--preload" if preload else "--nopreload")
    begin_secs = time.perf_counter()
    root_dir.mkdir(parents=True)
    with (root_dir / "launcher.log").open("wb") as out:
        launcher = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    observer = _Observer(program, root_dir, launcher.pid)
    killer = threading.Timer(_LIMIT_SECS, launcher.send_signal, [signal.SIGKILL])
    killer.start()
    with observer:
        _, status, usage = os.wait4(launcher.pid, 0)  # and of all its children
    killer.cancel()
    launcher.returncode = os.waitstatus_to_exitcode(status)
    if launcher.returncode or observer.called is None:
        text = (root_dir / "launcher.log").read_text(errors="replace")
        raise UnavailableError(f"a start failed ({launcher.returncode}):\n{text[-3000:]}")
    whole = Cost(usage.ru_utime + usage.ru_stime, time.perf_counter() - begin_secs)
    return Start(observer.called, whole, observer.memory_mb)


class _Observer:
    """Watches a launcher's processes in a thread, until it is left."""

    def __init__(self, program: Program, root_dir: pathlib.Path, launcher_pid: int):
        self._replicas = sum(role.replicas for role in program.roles)
        self._logs, self._pid = root_dir / run_directory.LOGS, launcher_pid
        self._begin_secs = time.perf_counter()
        self._closed = threading.Event()
        self.called: Cost | None = None
        self.memory_mb = 0.0
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> _Observer:
        self._thread.start()
        return self

    def __exit__(self, *unused) -> None:
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._closed.wait(_PERIOD_SECS):
            with contextlib.suppress(OSError):
                self._look()

    def _look(self) -> None:
        family = [self._pid, *_children(self._pid)]
        self.memory_mb = max(self.memory_mb, sum(map(_pss_mb, family)))
        if self.called is None:
            texts = [path.read_text(errors="replace") for path in self._logs.glob("*.log")]
            found = [float(m[1]) for text in texts for m in _BEGINS.finditer(text)]
            if len(found) == self._replicas:
                others = [pid for pid in family if not _is_role(pid)]
                spent_secs = sum(found) + sum(map(cpu_secs, others))
                self.called = Cost(spent_secs, time.perf_counter() - self._begin_secs)


def _children(pid: int) -> list[int]:
    path = pathlib.Path(f"/proc/{pid}/task/{pid}/children")
    return list(map(int, path.read_text().split()))


def _is_role(pid: int) -> bool:
    return b"--role=" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes()


def _pss_mb(pid: int) -> float:
    with contextlib.suppress(OSError):
        for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) / 1024
    return 0.0
