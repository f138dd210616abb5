"""The whole program on this machine (e): what it reaches, and what each process uses."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tfdrl.benchmarks import traffic
from tfdrl.benchmarks.measuring import slope
from tfdrl.benchmarks.proc import Observer, children, cpu_secs, flag, machine_cpu_secs, rss_bytes
from tfdrl.benchmarks.threads import LockSampler, ThreadUsage, cpu_secs_by_thread
from tfdrl.benchmarks.traffic import Traffic
from tfdrl.configuration import Configuration
from tfdrl.errors import TfdrlError
from tfdrl.experiment import Experiment
from tfdrl.launch.run import run_program
from tfdrl.launch.status import Watch
from tfdrl.rpc import clocks
from tfdrl.rpc.security import Security
from tfdrl.topology import Address, Role

_PERIOD_SECS = 0.5
#: From the start to the first learner step; replay may have to fill first.
_START_LIMIT_SECS = 300.0
_MAX_WARM_UP_SECS = 10.0
_METRICS = ("learner/waiting_share", "actor/waiting_share", "learner/policy_lag")


class Reading(NamedTuple):
    """What was seen at one moment.

    secs       time.monotonic()
    answered_secs  when the learner gave the counters
    frames, learner_steps  counters
    metrics    by name
    rss_bytes, cpu_secs  by process, such as "actor 0"
    thread_cpu_secs  of the chief, by thread
    """

    secs: float
    answered_secs: float
    frames: int
    learner_steps: int
    metrics: dict[str, float]
    rss_bytes: dict[str, int]
    cpu_secs: dict[str, float]
    machine_cpu_secs: float  # of everything that runs here
    thread_cpu_secs: Mapping[str, float] = {}


class Usage(NamedTuple):
    """One process: memory at the end of the window, its growth, and cores used."""

    rss_mb: float
    rss_mb_per_minute: float
    cores: float


class System(NamedTuple):
    """The running system over the window of measurement.

    `metrics` are means; `other_cores` are used by what does not belong to the run, or by the
    virtual machine's host: the more, the less the figures say. `threads` are those of the chief;
    `traffic` is by role and the role that it connects to.
    """

    secs: float
    frames_per_second: float
    learner_steps_per_second: float
    metrics: dict[str, float]
    processes: dict[str, Usage]
    other_cores: float
    chief: str = "learner"
    threads: Mapping[str, ThreadUsage] = {}
    traffic: Mapping[tuple[str, str], Traffic] = {}

    @property
    def cores(self) -> float:
        """Cores that the run's processes use."""
        return sum(usage.cores for usage in self.processes.values())


class _RunObserver(Observer):
    """Reads counters and processes; ends the run when the window is complete.

    The window begins after the first learner step and a warm-up.
    """

    def __init__(self, digest: str, chief: Role, window_secs: float):
        super().__init__(_PERIOD_SECS)
        self._digest, self._chief, self._window_secs = digest, chief, window_secs
        self._warm_up_secs = min(_MAX_WARM_UP_SECS, 0.5 * window_secs)
        self._watch, self._learning_secs, self._start_secs = None, None, time.monotonic()
        self.readings: list[Reading] = []
        self.is_complete, self._lock, self.lock_shares = False, None, {}

    def __exit__(self, *unused) -> None:
        super().__exit__()
        if self._lock is not None:
            self._lock.close()
        if self._watch is not None:
            self._watch.close()

    def look(self) -> bool:
        """Whether the run was told to stop."""
        processes, now_secs = role_processes(os.getpid()), time.monotonic()
        self._watch = self._watch or self._watch_of(processes)
        snapshot = self._watch.snapshot if self._watch else None
        if snapshot is None or snapshot.status is None or not snapshot.status.learner_step:
            return now_secs - self._start_secs > _START_LIMIT_SECS and _stop()
        self._learning_secs = self._learning_secs or now_secs
        if now_secs - self._learning_secs < self._warm_up_secs:
            return False
        chief = processes.get(self._chief.name) or processes[f"{self._chief.name} 0"]
        self._lock = self._lock or LockSampler(chief)
        self.readings.append(_reading(snapshot, processes, now_secs, chief))
        passed_secs = now_secs - self.readings[0].secs
        self.is_complete = passed_secs >= self._window_secs
        if self.is_complete:
            self.lock_shares = self._lock.shares(passed_secs)
        return self.is_complete and _stop()

    def _watch_of(self, processes: dict[str, int]) -> Watch | None:
        """What asks the chief for its counters, once all of its replicas are there."""
        chiefs = [p for name, p in processes.items() if name.split()[0] == self._chief.name]
        found = [flag(pid, "--listen") for pid in chiefs]
        if len(chiefs) < self._chief.replicas or not all(found):
            return None
        key = Security.from_files(token_file=flag(chiefs[0], "--token_file"))
        return Watch(list(map(Address.parse, found)), self._digest, key)


def _stop() -> bool:
    os.kill(os.getpid(), signal.SIGTERM)  # which `run_program` takes as "stop"
    return True


def _reading(snapshot, processes: dict[str, int], now_secs: float, chief: int) -> Reading:
    metrics = {name: snapshot.metric(name) for name in _METRICS}
    rss, cpu, threads = {}, {}, {}
    with contextlib.suppress(OSError):
        threads = cpu_secs_by_thread(chief)
    for name, pid in processes.items():
        with contextlib.suppress(OSError):
            cpu[name] = cpu_secs(pid)
            rss[name] = rss_bytes(pid)
    return Reading(
        now_secs,
        snapshot.answered_secs,
        snapshot.status.frames,
        snapshot.status.learner_step,
        {name: value for name, value in metrics.items() if value is not None},
        rss,
        cpu,
        machine_cpu_secs(),
        threads,
    )


def role_processes(launcher_pid: int) -> dict[str, int]:
    """Process ids of a launcher's roles: {"learner": 12, "actor 0": 13, "actor 1": 14}."""
    found: dict[str, dict[int, int]] = {}
    for pid in children(launcher_pid):
        with contextlib.suppress(OSError, ValueError):
            if role := flag(pid, "--role"):
                found.setdefault(role, {})[int(flag(pid, "--task") or 0)] = pid
    return {
        role if len(tasks) == 1 else f"{role} {task}": pid
        for role, tasks in sorted(found.items())
        for task, pid in sorted(tasks.items())
    }


def run(
    configuration: Configuration,
    experiment: Experiment,
    gin_files: Sequence[str],
    gin_bindings: Sequence[str],
    root_dir: pathlib.Path,
    window_secs: float,
) -> System:
    """Trains in `root_dir` until `window_secs` were measured; progress goes to stderr.

    Call from the main thread. Raises TfdrlError if the run ends earlier.
    """
    program = experiment.architecture.program()
    observer = _RunObserver(configuration.digest, program.role(program.chief), window_secs)
    with contextlib.redirect_stdout(sys.stderr), observer as it:
        code = run_program(experiment, program, configuration, root_dir, gin_files, gin_bindings)
    if not it.is_complete:
        raise TfdrlError(
            f"the run ended with exit code {code} before {window_secs:g} s could be measured"
        )
    found = summarise(it.readings, it.lock_shares, program.chief)
    return found._replace(traffic=traffic.of_run(root_dir, *window(it.readings)))


def window(readings: Sequence[Reading]) -> tuple[float, float]:
    """The first and the last reading's Unix time, as the roles have it."""
    offset_secs = clocks.unix_secs() - time.monotonic()
    return offset_secs + readings[0].secs, offset_secs + readings[-1].secs


def summarise(
    readings: Sequence[Reading], lock_shares: Mapping[str, float], chief: str = "learner"
) -> System:
    """Rates and growth by least squares over the readings, means of the rest.

    Args:
      readings: in the order of time.
      lock_shares: by thread of the chief, if they are known.
      chief: name of its role.
    """
    secs = [reading.secs for reading in readings]
    answered_secs = [reading.answered_secs for reading in readings]
    means = {}
    for name in _METRICS:
        values = [reading.metrics[name] for reading in readings if name in reading.metrics]
        if values:
            means[name] = statistics.fmean(values)
    processes = {name: _usage(name, readings) for name in sorted(readings[-1].rss_bytes)}
    busy_cores = slope(secs, [reading.machine_cpu_secs for reading in readings])
    return System(
        secs[-1] - secs[0],
        slope(answered_secs, [reading.frames for reading in readings]),
        slope(answered_secs, [reading.learner_steps for reading in readings]),
        means,
        processes,
        max(0.0, busy_cores - sum(usage.cores for usage in processes.values())),
        chief,
        _threads(readings, lock_shares),
    )


def _threads(
    readings: Sequence[Reading], lock_shares: Mapping[str, float]
) -> dict[str, ThreadUsage]:
    """The chief's, the busiest first."""
    secs = [reading.secs for reading in readings]
    names = {name for reading in readings for name in reading.thread_cpu_secs}
    cores = {
        name: slope(secs, [reading.thread_cpu_secs.get(name, 0.0) for reading in readings])
        for name in names
    }
    unsampled = 0.0 if lock_shares else None
    return {
        name: ThreadUsage(cores[name], lock_shares.get(name, unsampled))
        for name in sorted(names, key=cores.get, reverse=True)
    }


def _usage(name: str, readings: Sequence[Reading]) -> Usage:
    found = [reading for reading in readings if name in reading.rss_bytes]
    secs = [reading.secs for reading in found]
    rss_mb = [reading.rss_bytes[name] / 2**20 for reading in found]
    cores = slope(secs, [reading.cpu_secs[name] for reading in found])
    return Usage(rss_mb[-1], 60 * slope(secs, rss_mb), cores)
