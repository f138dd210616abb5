"""The parts of SEED RL: the inference service beside bare grpcio (a), more and more streams (b).

The service's limit: an observation costs the CPU of the service without a network (actors and
server) and that of the network alone; C cores allow C over their sum.

An actor can make no more steps than its environment alone; what share of that is left with the
service between the steps, how long they wait for it, and what it takes of memory and cores, is
part b.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from tfdrl.benchmarks.harness import Bench, Found, rates
from tfdrl.benchmarks.many_actors import Chief
from tfdrl.benchmarks.measuring import Turn, cost, interleave, ratio, say
from tfdrl.benchmarks.page import Figure
from tfdrl.benchmarks.processes import START_LIMIT_SECS, Worker
from tfdrl.rpc.security import Security
from tfdrl.topology import Address

_PROCESSES = "tfdrl.benchmarks.seed_processes"
_VARIANTS = {
    "echo": "bare grpcio stream, same messages",
    "one_thread": "bare grpcio stream, driven by one thread",
    "null": "service without a network",
    "network": "service",
    "alone": "the network alone",
}
#: The kinds of server and actors.
_PAIRS = {
    "echo": ("echo", "bare_actor"),
    "one_thread": ("echo", "bare_actor_of_one_thread"),
    "null": ("null", "random_actor"),
    "network": ("network", "random_actor"),
}
#: Of bare grpcio, and of the service's own limit.
_NULL_AIM, _NETWORK_AIM = 0.60, 0.85
#: Streams of part b, and the processes that they are threads of.
_LEVELS = (5, 10, 20, 50, 100, 300)
_STREAM_PROCESSES = 4
#: Of an environment alone, whichever comes first.
_ALONE_STEPS, _ALONE_SECS = 100, 5.0
_WARM_UP_SECS = 1.0  # batches of all sizes are compiled
_STREAMS_WARM_UP_SECS = 5.0
_STREAMS_AIM = 0.80
#: Beside those that were asked for: longer than an actor waits for the service.
_ANSWER_SECS = 90.0


class _Service(NamedTuple):
    """A server and its actors, which take a turn together."""

    server: Worker
    actors: Sequence[Worker]
    address: Address

    def __call__(self, secs: float, server_pid: int | None = None) -> Turn:
        """A turn: all actors exchange steps for so long; CPU seconds are of all processes."""
        before = self.cpu_secs
        units = sum(self.ask([secs] * len(self.actors), secs))
        return Turn(units, secs, self.cpu_secs - before)

    def network_alone(self, secs: float, server_pid: int | None = None) -> Turn:
        """A turn of the server, which computes without being asked by actors."""
        self.server.tell(secs)
        return self.server.hear(secs + _ANSWER_SECS)

    def ask(self, commands: Sequence[object], secs: float) -> list:
        """Gives each process of actors its command; their answers, after so long."""
        for actor, command in zip(self.actors, commands):
            actor.tell(command)
        return [actor.hear(secs + _ANSWER_SECS) for actor in self.actors]

    @property
    def cpu_secs(self) -> float:
        """Of all these processes so far."""
        return sum(one.cpu_secs for one in (self.server, *self.actors))


@contextlib.contextmanager
def _service(bench: Bench, kind: str, actors: str, tasks: Sequence) -> Iterator[_Service]:
    """A server and the processes of its actors, all ready.

    Args:
      bench: with the configuration.
      kind: of the server, as in `_PAIRS`.
      actors: their function.
      tasks: its argument in each process.
    """
    say(f"starting the {kind} server and its actors")
    with contextlib.ExitStack() as stack:

        def start(role: str, function: str, *arguments) -> Worker:
            worker = bench.worker(role, f"{_PROCESSES}:{function}", *arguments)
            return stack.enter_context(worker)

        # An echo needs no TensorFlow: it has the threads of an actor.
        server = start("actor" if kind == "echo" else "learner", f"{kind}_server")
        address = server.hear(START_LIMIT_SECS)
        clients = [start("actor", actors, address, task) for task in tasks]
        for client in clients:
            client.hear(START_LIMIT_SECS)
        yield _Service(server, clients, address)


def service(bench: Bench) -> Found:
    """Part a: CPU seconds are of all processes."""
    tasks = range(bench.config.actors)
    with contextlib.ExitStack() as stack:
        variants = {}
        for name, (kind, actor) in _PAIRS.items():
            variants[name] = stack.enter_context(_service(bench, kind, actor, tasks))
            variants[name](_WARM_UP_SECS)
        variants["alone"] = variants["network"].network_alone
        turns = interleave("service", variants, bench.settings.rounds)
    costs = {kind: cost(found) for kind, found in turns.items()}
    cores = len(os.sched_getaffinity(0))
    limit = cores / (costs["null"].cpu_secs + costs["alone"].cpu_secs)
    bare = ratio(turns["null"], turns["echo"])
    reached = costs["network"].units_per_second / limit
    figures = [
        *rates(turns, _VARIANTS, "observations"),
        *(Figure(f"{_VARIANTS[k]}: CPU", 1e6 * found.cpu_secs, "us") for k, found in costs.items()),
        Figure("service without a network / bare grpcio", bare, "ratio", _NULL_AIM),
        Figure("limit of the service by these costs", limit, "observations/s"),
        Figure("service / its limit", reached, "ratio", _NETWORK_AIM),
    ]
    return Found(figures, turns)


def messages(bench: Bench) -> dict[str, float]:
    """CPU seconds of a message and its answer: {"send": ..., "serve": ...}.

    Serving is all that the learner's process does for a message of its service beside the network:
    that is measured alone in turns with it, in batches of the size that is wanted, and taken off.
    """
    config, rounds = bench.config, bench.settings.rounds
    found: dict[str, list[float]] = {"send": [], "serve": []}
    with _service(bench, "network", "random_actor", range(config.actors)) as every:
        every(_WARM_UP_SECS)
        every.network_alone(_WARM_UP_SECS)
        for _ in range(rounds.count):
            alone = every.network_alone(rounds.secs)
            server, everybody = every.server.cpu_secs, every.cpu_secs
            count = every(rounds.secs).units / config.environments_per_actor
            serving = every.server.cpu_secs - server
            found["send"].append((every.cpu_secs - everybody - serving) / count)
            network = alone.cpu_secs / alone.units * config.environments_per_actor
            found["serve"].append(max(serving / count - network, 0.0))
    return {side: statistics.median(each) for side, each in found.items()}


def streams(bench: Bench) -> Found:
    """Part b: more and more connections to one learner's service, which stay."""
    config, rounds = bench.config, bench.settings.rounds
    tasks = [range(i, config.actors, _STREAM_PROCESSES) for i in range(_STREAM_PROCESSES)]
    with _service(bench, "network", "acting_threads", tasks) as every:
        alone = _steps_per_second_alone(config)
        figures = [Figure("an actor's environment alone", alone, "steps/s")]
        for level in [*(level for level in _LEVELS if level < config.actors), config.actors]:
            say(f"  {level} streams")
            figures += _level(every, level, rounds.count * rounds.secs, alone)
    return Found(figures)


def _level(every: _Service, streams: int, secs: float, alone: float) -> list[Figure]:
    begin_secs = time.perf_counter()
    _step(every, streams, 0.0)
    join_secs = time.perf_counter() - begin_secs
    _step(every, streams, _STREAMS_WARM_UP_SECS)
    cpu_secs, start_secs = every.cpu_secs, time.perf_counter()
    answers = _step(every, streams, secs)
    cores = (every.cpu_secs - cpu_secs) / (time.perf_counter() - start_secs)
    rate = sum(count for count, _ in answers) / secs
    p50, p99 = np.percentile(np.concatenate([times_ms for _, times_ms in answers]), [50, 99])
    with Chief(every.address, Security()) as chief:
        asked = chief.ask()
    share, machine = rate / streams / alone, len(os.sched_getaffinity(0))
    aim = _STREAMS_AIM if cores < 0.9 * machine else None  # full cores' loss is not the service's
    return [
        Figure(f"{streams} streams: until the new ones have acted", join_secs, "s"),
        Figure(f"{streams} streams", rate, "steps/s"),
        Figure(f"{streams} streams / what the environments allow", share, "ratio", aim),
        Figure(f"{streams} streams: wait for an action, p50", p50, "ms"),
        Figure(f"{streams} streams: wait for an action, p99", p99, "ms"),
        Figure(f"{streams} streams: learner's memory (RSS)", every.server.rss_mb, "MB"),
        Figure(f"{streams} streams: status", asked.size_bytes / 1e3, "KB"),
        Figure(f"{streams} streams: status", 1e3 * asked.secs, "ms"),
        Figure(f"{streams} streams: CPU of all, of {machine}", cores, "cores"),
    ]


def _step(every: _Service, streams: int, secs: float) -> list[tuple[int, np.ndarray]]:
    """Lets so many actors step, those that are new first; what their processes answer."""
    shares = [len(range(i, streams, _STREAM_PROCESSES)) for i in range(len(every.actors))]
    return every.ask([(secs, share) for share in shares], secs)


def _steps_per_second_alone(config) -> float:
    num_envs = config.environments_per_actor
    with config.environment(num_envs=num_envs, training=True, seed=0) as environment:
        environment.reset()
        action = np.zeros(num_envs, np.int32)
        count, start_secs, passed_secs = 0, time.perf_counter(), 0.0
        while count < _ALONE_STEPS and passed_secs < _ALONE_SECS:
            environment.step(action)
            count, passed_secs = count + 1, time.perf_counter() - start_secs
        return num_envs * count / passed_secs
