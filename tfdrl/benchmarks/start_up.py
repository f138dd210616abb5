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

from tfdrl.benchmarks.harness import Bench
from tfdrl.benchmarks.measuring import say
from tfdrl.benchmarks.page import Figure, Section
from tfdrl.benchmarks.proc import Observer, children, cpu_secs, flag, pss_mb
from tfdrl.errors import UnavailableError
from tfdrl.launch import exits, run_directory
from tfdrl.launch.replicas import common_arguments

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


def section(bench: Bench) -> Section:
    """Measures some starts of each kind in turns; medians.

    Raises:
      TfdrlError: a start failed or took too long.
    """
    imports = [_import(bench) for _ in range(_IMPORTS)]
    found: dict[bool, list[Start]] = {True: [], False: []}
    rounds = bench.settings.rounds.count
    for number in range(rounds):
        for preload in (True, False):
            found[preload].append(_start(bench, preload))
            say(f"  start: round {number + 1} of {rounds}")
    imports += [_import(bench) for _ in range(_IMPORTS)]
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


def _import(bench: Bench) -> Cost:
    return cost_of([sys.executable, "-c", _IMPORT], bench.new_directory())


def _start(bench: Bench, preload: bool) -> Start:
    is_checkout = importlib.util.find_spec("binaries") is not None
    module = "binaries.train" if is_checkout else "tfdrl.binaries.train"
    root_dir, gin_files = bench.new_directory(), bench.settings.gin_files
    bindings = [*bench.settings.gin_bindings, "experiment.max_learner_steps = 1"]
    command = [sys.executable, "-m", module, "--preload" if preload else "--nopreload"]
    command += common_arguments(root_dir, gin_files, bindings, verbose=False)
    roles = bench.config.program().roles
    observer = StartObserver(root_dir / run_directory.LOGS, sum(role.replicas for role in roles))
    whole = cost_of(command, root_dir, observer)
    if observer.called is None:
        raise UnavailableError("a start ended before the functions of its roles were called")
    return Start(observer.called, whole, observer.memory_mb)


def cost_of(
    command: Sequence[str], directory: pathlib.Path, observer: StartObserver | None = None
) -> Cost:
    """What the command costs, with all of its descendants that it has waited for."""
    begin_secs, log = time.perf_counter(), directory / "launcher.log"
    with log.open("wb") as out:
        child = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
    killer = threading.Timer(_LIMIT_SECS, child.send_signal, [signal.SIGKILL])
    killer.start()
    try:
        with observer.of(child.pid) if observer else contextlib.nullcontext():
            _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
    finally:  # it does not outlive us, nor does the timer keep us
        killer.cancel()
        child.kill()
    if child.returncode:
        text = log.read_text(errors="replace")[-3000:]
        raise UnavailableError(f"a start failed ({exits.describe(child.returncode)}):\n{text}")
    return Cost(usage.ru_utime + usage.ru_stime, time.perf_counter() - begin_secs)


class StartObserver(Observer):
    """Watches a launcher's processes."""

    def __init__(self, logs: pathlib.Path, replicas: int):
        super().__init__(_PERIOD_SECS)
        self._logs, self._replicas = logs, replicas
        self.called: Cost | None = None
        self.memory_mb = 0.0

    def of(self, launcher_pid: int) -> StartObserver:
        """The same, of that launcher, which has just been started."""
        self._pid, self._begin_secs = launcher_pid, time.perf_counter()
        return self

    def look(self) -> bool:
        """Never enough."""
        with contextlib.suppress(OSError):
            family = [self._pid, *children(self._pid)]
            self.memory_mb = max(self.memory_mb, sum(map(pss_mb, family)))
            if self.called is None:
                self.called = self._cost_if_called(family)
        return False

    def _cost_if_called(self, family: Sequence[int]) -> Cost | None:
        texts = [path.read_text(errors="replace") for path in self._logs.glob("*.log")]
        found = [float(m[1]) for text in texts for m in _BEGINS.finditer(text)]
        if len(found) != self._replicas:
            return None
        others = [pid for pid in family if not flag(pid, "--role")]
        spent_secs = sum(found) + sum(map(cpu_secs, others))
        return Cost(spent_secs, time.perf_counter() - self._begin_secs)
