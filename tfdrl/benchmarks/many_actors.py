"""Many actors of one learner (n): what grows with their number, beside acting itself.

The learner is the program's own, with its replay and one actor that feeds it. The other actors are
clients like theirs, each with a connection of its own, that pull parameters and report, and do
nothing between: hundreds of them fit on one machine. Meanwhile the learner is asked for its status
each second, as a launcher does. What a launcher does for as many processes is measured apart, on
processes that sleep.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import grpc
import numpy as np

from tfdrl.benchmarks.harness import Bench, Found
from tfdrl.benchmarks.many_clients import Answer, Order
from tfdrl.benchmarks.measuring import say
from tfdrl.benchmarks.page import Figure
from tfdrl.benchmarks.proc import cpu_secs, rss_bytes
from tfdrl.benchmarks.processes import START_LIMIT_SECS, Worker
from tfdrl.errors import UnavailableError
from tfdrl.launch.credentials import Credentials
from tfdrl.launch.replica import Replica
from tfdrl.launch.status import Tracker
from tfdrl.launch.supervisor import Supervisor
from tfdrl.launch.tools import watch
from tfdrl.rpc import channels, run_messages, training_pb2
from tfdrl.rpc.run_messages import Status
from tfdrl.rpc.security import Security
from tfdrl.topology import Address, Role

_CLIENTS = "tfdrl.benchmarks.many_clients:clients"
_PROCESSES = 4
_LEVELS = (1, 10, 100)
#: Between two pulls of an actor, and two questions of the launcher.
_PULL_SECS = _STATUS_SECS = 1.0
_ANSWER_SECS = 120.0
_POLLS = 20


def measure(bench: Bench) -> Found:
    """Levels of 1, 10, 100 and all of the configured actors but one, who acts."""
    config, rounds = bench.config, bench.settings.rounds
    levels = [level for level in (*_LEVELS, config.actors - 1) if 0 < level < config.actors]
    levels = sorted(set(levels))
    program, figures = config.program(), []
    serving = [role.name for role in program.roles if role.serves]
    with bench.serving(*serving, actors=1) as (servers, credentials):
        security, secs = credentials.security, rounds.count * rounds.secs
        server = servers[program.chief][0]
        with Chief(server.address, security) as chief:
            chief.wait_for_steps()
            with _clients(bench, server.address, credentials, levels[-1]) as clients:
                for level in levels:
                    say(f"  {level} actors")
                    figures += _level(clients, chief, server.pid, level, secs)
                figures += _fan_out(clients, server.pid, levels[-1], secs)
    for level in levels:
        figures += _supervision(bench, level)
    return Found(figures)


class _Asked(NamedTuple):
    """One answer to Status: what it says, its size, and how long it took."""

    status: Status
    size_bytes: int
    secs: float


class Chief:
    """A learner, asked as a launcher asks, until the block is left."""

    def __init__(self, address: Address, security: Security):
        most = channels.DEFAULT_MAX_MESSAGE_BYTES
        options = channels.channel_options(most, run_messages.MAX_REQUEST_BYTES)
        self._name = f"the learner at {address}"
        self._metadata, self._channel = security.metadata, security.channel(address, options)
        self._method = self._channel.unary_unary(f"/{run_messages.SERVICE}/Status")

    def __enter__(self) -> Chief:
        return self

    def __exit__(self, *unused) -> None:
        self._channel.close()

    def ask(self) -> _Asked:
        """Its status. Raises UnavailableError or ConfigurationError as a role's calls do."""
        data, begin_secs = training_pb2.StatusRequest().SerializeToString(), time.perf_counter()
        limits = {"timeout": _ANSWER_SECS, "wait_for_ready": True}
        try:
            reply = self._method(data, metadata=self._metadata, **limits)
        except grpc.RpcError as error:
            raise channels.to_tfdrl_error(
                error, "the benchmark", self._name, "Status", _ANSWER_SECS
            ) from None
        status = run_messages.status_from_message(training_pb2.StatusReply.FromString(reply))
        return _Asked(status, len(reply), time.perf_counter() - begin_secs)

    def wait_for_steps(self) -> None:
        """Until it trains. Raises UnavailableError after a while."""
        deadline_secs = time.monotonic() + START_LIMIT_SECS
        while not self.ask().status.learner_step:
            if time.monotonic() > deadline_secs:
                text = f"{self._name} made no step within {START_LIMIT_SECS:g} s"
                raise UnavailableError(text)
            time.sleep(_STATUS_SECS)

    def watch(self, secs: float) -> list[_Asked]:
        """Its answers for so long."""
        deadline_secs, found = time.monotonic() + secs, []
        while time.monotonic() < deadline_secs:
            found.append(self.ask())
            time.sleep(_STATUS_SECS)
        return found


@contextlib.contextmanager
def _clients(
    bench: Bench, learner: Address, credentials: Credentials, number: int
) -> Iterator[list[Worker]]:
    """Processes with so many clients; the first task is the real actor's."""
    with contextlib.ExitStack() as stack:
        found = []
        for process in range(_PROCESSES):
            tasks = range(1 + process, 1 + number, _PROCESSES)
            worker = bench.worker("", _CLIENTS, learner, credentials, tasks)
            found.append(stack.enter_context(worker))
        for worker in found:
            worker.hear(START_LIMIT_SECS)
        yield found


def _tell(clients: Sequence[Worker], number: int, order: Order) -> None:
    """Gives an order to so many clients, from all processes."""
    for process, worker in enumerate(clients):
        share = len(range(process, number, _PROCESSES))
        worker.tell(order._replace(number=share))


def _hear(clients: Sequence[Worker], secs: float) -> Answer:
    """What all of them have done."""
    answers = [worker.hear(secs + _ANSWER_SECS) for worker in clients]
    return Answer(
        sum(answer.replies for answer in answers),
        sum(answer.size_bytes for answer in answers),
        np.concatenate([answer.times_ms for answer in answers]),
        sum(answer.failures for answer in answers),
    )


def _level(
    clients: Sequence[Worker], chief: Chief, pid: int, level: int, secs: float
) -> list[Figure]:
    begin_secs = time.perf_counter()
    _tell(clients, level, Order("join"))
    joined, join_secs = _hear(clients, 0.0), time.perf_counter() - begin_secs
    before = chief.ask().status.learner_step
    cpu, begin_secs = cpu_secs(pid), time.perf_counter()
    _tell(clients, level, Order("live", secs=secs, pull_secs=_PULL_SECS))
    asked = chief.watch(secs)
    cores = (cpu_secs(pid) - cpu) / (time.perf_counter() - begin_secs)
    steps = (asked[-1].status.learner_step - before) / (time.perf_counter() - begin_secs)
    answer, name = _hear(clients, secs), f"{level} actors"
    rate = answer.replies / (time.perf_counter() - begin_secs)
    p50, p99 = np.percentile(answer.times_ms, [50, 99])
    rows, panel_secs = _panel(asked[-1].status)
    return [
        Figure(f"{name}: until all have joined, at once", join_secs, "s"),
        Figure(f"{name}: pulls answered, of {level / _PULL_SECS:g}/s", rate, "/s"),
        Figure(f"{name}: time of a pull, p50", p50, "ms"),
        Figure(f"{name}: time of a pull, p99", p99, "ms"),
        Figure(f"{name}: calls that failed", answer.failures + joined.failures, ""),
        Figure(f"{name}: learner's CPU", cores, "cores"),
        Figure(f"{name}: learner steps", steps, "/s"),
        Figure(f"{name}: learner's memory (RSS)", rss_bytes(pid) / 1e6, "MB"),
        Figure(f"{name}: status", asked[-1].size_bytes / 1e3, "KB"),
        Figure(f"{name}: status", 1e3 * statistics.median(a.secs for a in asked), "ms"),
        Figure(f"{name}: rows of the panel", rows, ""),
        Figure(f"{name}: a look of the panel", 1e3 * panel_secs, "CPU ms"),
    ]


def _panel(status: Status) -> tuple[int, float]:
    """Rows that a panel shows of it, and CPU seconds of making them."""
    begin_secs, tracker = time.process_time(), Tracker(0.0)
    tracker.add(status, time.monotonic())
    rows = watch.facts(tracker.snapshot)
    return len(rows), time.process_time() - begin_secs


def _fan_out(clients: Sequence[Worker], pid: int, number: int, secs: float) -> list[Figure]:
    """All pull whole sets of parameters, as fast as they get them."""
    begin_secs, cpu = time.perf_counter(), cpu_secs(pid)
    _tell(clients, number, Order("pull", secs=secs))
    peak_mb = 0.0
    while time.perf_counter() - begin_secs < secs:
        peak_mb = max(peak_mb, rss_bytes(pid) / 1e6)
        time.sleep(0.05)
    answer, name = _hear(clients, secs), f"{number} actors pull whole sets"
    passed_secs, spent_secs = time.perf_counter() - begin_secs, cpu_secs(pid) - cpu
    p50, p99 = np.percentile(answer.times_ms, [50, 99])
    each_mb = answer.size_bytes / max(answer.replies, 1) / 1e6
    return [
        Figure(f"{name}: size of a set", each_mb, "MB"),
        Figure(f"{name}: sets", answer.replies / passed_secs, "/s"),
        Figure(f"{name}: out of the learner", answer.size_bytes / 1e6 / passed_secs, "MB/s"),
        Figure(f"{name}: learner's CPU", 1e3 * spent_secs / max(answer.replies, 1), "ms/set"),
        Figure(f"{name}: time of a pull, p50", p50, "ms"),
        Figure(f"{name}: time of a pull, p99", p99, "ms"),
        Figure(f"{name}: calls that failed", answer.failures, ""),
        Figure(f"{name}: learner's memory (RSS), most", peak_mb, "MB"),
    ]


def _supervision(bench: Bench, level: int) -> list[Figure]:
    """What a launcher spends on so many processes of this machine."""
    role, logs = Role("actor", "", replicas=level), bench.new_directory()
    command = ["sleep", "600"]
    replicas = [Replica(role, task, command, logs / f"actor-{task}.log") for task in range(level)]
    supervisor = Supervisor(replicas, "learner", notify=say)
    try:
        begin_secs, cpu = time.perf_counter(), time.process_time()
        supervisor.start()
        start_secs, start_cpu_secs = time.perf_counter() - begin_secs, time.process_time() - cpu
        cpu = time.process_time()
        for _ in range(_POLLS):
            supervisor.poll()
            supervisor.was_started("learner")
        poll_secs = (time.process_time() - cpu) / _POLLS
        files = len(os.listdir("/proc/self/fd"))
    finally:
        supervisor.kill()
    name = f"launcher, {level} actors"
    return [
        Figure(f"{name}: until all were started", start_secs, "s"),
        Figure(f"{name}: starting one", 1e3 * start_cpu_secs / level, "CPU ms"),
        Figure(f"{name}: a look at all, ten times a second", 1e3 * poll_secs, "CPU ms"),
        Figure(f"{name}: open files", files, ""),
    ]
