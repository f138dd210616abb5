"""SEED RL as the benchmark sees it: the inference service beside bare grpcio, and the whole.

The service's limit: an observation costs the CPU of the service without a network (actors and
server) and that of the network alone; C cores allow C over their sum.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tfdrl.benchmarks import seed_streams, system
from tfdrl.benchmarks.measuring import Cost, Rounds, Turn, cost, ratio
from tfdrl.benchmarks.page import Figure, Section
from tfdrl.benchmarks.seed_process import Child, service

_VARIANTS = {
    "echo": "bare grpcio stream, same messages",
    "null": "service without a network",
    "network": "service",
}
_UNIT = "observations"
#: Of bare grpcio, and of the service's own limit.
_NULL_AIM, _NETWORK_AIM = 0.60, 0.85


class _Service(NamedTuple):
    """A server and its actors."""

    server: Child
    actors: list[Child]

    def turn(self, secs: float) -> Turn:
        """All actors exchange steps for so long; CPU seconds are of all these processes."""
        everyone = [self.server, *self.actors]
        before = sum(one.cpu_secs for one in everyone)
        for actor in self.actors:
            actor.tell(f"go {secs}")
        units = sum(int(actor.hear()[0]) for actor in self.actors)
        return Turn(units, secs, sum(one.cpu_secs for one in everyone) - before, 0.0)


def sections(
    config, gin: Sequence[str], rounds: Rounds, parts: str, whole: system.System | None
) -> list[Section]:
    """The service's figures, and those of the whole system if it was measured.

    Args:
      config: a `Seed`.
      gin: flags that name files and bindings.
      rounds: how often and how long.
      parts: a, the service beside bare grpcio; b, more and more streams.
      whole: of part e.
    """
    found = [_service_section(config, gin, rounds)] if "a" in parts else []
    if "b" in parts:
        found.append(seed_streams.section(config, gin, rounds.count * rounds.secs))
    if whole is not None:
        found.append(_whole_section(config, whole))
    return found


def _service_section(config, gin: Sequence[str], rounds: Rounds) -> Section:
    turns: dict[str, list[Turn]] = {kind: [] for kind in _VARIANTS}
    raw_cpu_secs, raw_rates = [], []
    with contextlib.ExitStack() as stack:
        services = {kind: stack.enter_context(_service(kind, config, gin)) for kind in _VARIANTS}
        for each in services.values():
            each.turn(1.0)
        for number in range(rounds.count):
            for kind, each in services.items():
                turns[kind].append(each.turn(rounds.secs))
            services["network"].server.tell(f"raw {rounds.secs}")
            count, cpu = services["network"].server.hear()
            raw_cpu_secs.append(float(cpu) / int(count))
            raw_rates.append(int(count) / rounds.secs)
            print(f"  service: round {number + 1} of {rounds.count}", file=sys.stderr, flush=True)
    costs = {kind: cost(found) for kind, found in turns.items()}
    figures = [
        Figure(words, costs[kind].units_per_second, f"{_UNIT}/s")
        for kind, words in _VARIANTS.items()
    ]
    network_cpu_secs = statistics.median(raw_cpu_secs)
    cores = len(os.sched_getaffinity(0))
    limit = cores / (costs["null"].cpu_secs + network_cpu_secs)
    figures += [
        Figure("the network alone", statistics.median(raw_rates), f"{_UNIT}/s"),
        *_cpu_figures(costs),
        Figure("the network alone: CPU", 1e6 * network_cpu_secs, "us"),
        Figure(
            "service without a network / bare grpcio",
            ratio(turns["null"], turns["echo"]),
            *("ratio", _NULL_AIM),
        ),
        Figure("limit of the service by these costs", limit, f"{_UNIT}/s"),
        Figure(
            "service / its limit",
            costs["network"].units_per_second / limit,
            *("ratio", _NETWORK_AIM),
        ),
    ]
    return Section(
        f"Inference service, {config.actors} actors of {config.environments_per_actor} "
        "environments, CPU of all processes for an observation",
        figures,
    )


def _cpu_figures(costs: Mapping[str, Cost]) -> list[Figure]:
    return [
        Figure(f"{words}: CPU", 1e6 * costs[kind].cpu_secs, "us")
        for kind, words in _VARIANTS.items()
    ]


@contextlib.contextmanager
def _service(kind: str, config, gin: Sequence[str]) -> Iterator[_Service]:
    print(f"starting the {kind} server and its actors", file=sys.stderr, flush=True)
    bare = f"--bare={kind == 'echo'}".lower()
    clients = [[f"--task={task}", bare] for task in range(config.actors)]
    with service(kind, gin, "tfdrl.benchmarks.seed_client", clients) as (server, actors):
        yield _Service(server, actors)


def _whole_section(config, whole: system.System) -> Section:
    with config.environment(num_envs=1, training=True, seed=0) as environment:
        steps_per_second = whole.frames_per_second / environment.frames_per_step
    figures = [
        Figure("measured for", whole.secs, "s"),
        Figure("environment steps", steps_per_second, "environment steps/s"),
        Figure("learner steps", whole.learner_steps_per_second, "learner steps/s"),
    ]
    words = {
        "learner/waiting_share": ("learner waits for unrolls", "share of time"),
        "learner/policy_lag": ("policy lag", "learner steps"),
    }
    for name, (text, unit) in words.items():
        if name in whole.metrics:
            figures.append(Figure(text, whole.metrics[name], unit))
    for name, usage in whole.processes.items():
        figures.append(Figure(f"{name}: CPU", usage.cores, "cores"))
        figures.append(Figure(f"{name}: memory (RSS)", usage.rss_mb, "MB"))
    figures.append(Figure("everything else on this machine: CPU", whole.other_cores, "cores"))
    return Section("Whole system (e)", figures)
