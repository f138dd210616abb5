"""How many actors one learner's inference service takes: more and more connections.

An actor can make no more steps than its environment alone; what share of that is left with the
service between the steps, how long they wait for it, and what it takes of memory and cores.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence

import numpy as np

from tfdrl.benchmarks.page import Figure, Section
from tfdrl.benchmarks.seed_process import Child, service

_LEVELS = (5, 10, 20, 50, 100)
_PROCESSES = 4
_ALONE_STEPS = 100
_WARM_UP_SECS = 5.0
_AIM = 0.80


def section(config, gin: Sequence[str], secs: float) -> Section:
    """Measures, and leaves nothing behind.

    Args:
      config: a `Seed`.
      gin: flags that name files and bindings.
      secs: of each number of streams.
    """
    tasks = [range(number, config.actors, _PROCESSES) for number in range(_PROCESSES)]
    clients = [["--tasks=" + ",".join(map(str, some))] for some in tasks]
    with service("network", gin, "tfdrl.benchmarks.seed_actors", clients) as (server, actors):
        alone = _steps_per_second_alone(config)
        figures = [Figure("an actor's environment alone", alone, "steps/s")]
        _step(actors, config.actors, _WARM_UP_SECS)  # batches of all sizes are compiled
        for level in [*(level for level in _LEVELS if level < config.actors), config.actors]:
            print(f"  {level} streams", file=sys.stderr, flush=True)
            figures += _level(server, actors, level, secs, alone)
    title = "Streams (b): actors that wait for their environments most of the time"
    return Section(title, figures)


def _level(
    server: Child, actors: Sequence[Child], streams: int, secs: float, alone: float
) -> list[Figure]:
    children = [server, *actors]
    cpu_secs = -sum(child.cpu_secs for child in children)
    start_secs = time.perf_counter()
    answers = _step(actors, streams, secs)
    took_secs = time.perf_counter() - start_secs
    cores = (cpu_secs + sum(child.cpu_secs for child in children)) / took_secs
    rate = sum(int(count) for count, _ in answers) / secs
    times_ms = np.concatenate([json.loads(times) for _, times in answers])
    p50, p99 = np.percentile(times_ms, [50, 99])
    machine = len(os.sched_getaffinity(0))
    aim = _AIM if cores < 0.9 * machine else None  # what full cores lose is not the service's
    return [
        Figure(f"{streams} streams", rate, "steps/s"),
        Figure(
            f"{streams} streams / what the environments allow", rate / streams / alone, "ratio", aim
        ),
        Figure(f"{streams} streams: wait for an action, p50", p50, "ms"),
        Figure(f"{streams} streams: wait for an action, p99", p99, "ms"),
        Figure(f"{streams} streams: learner's memory (RSS)", server.rss_mb, "MB"),
        Figure(f"{streams} streams: CPU of all, of {machine}", cores, "cores"),
    ]


def _step(actors: Sequence[Child], streams: int, secs: float) -> list[list[str]]:
    """Lets so many of them step; the answers of their processes."""
    for number, actor in enumerate(actors):
        actor.tell(f"go {secs} {len(range(number, streams, _PROCESSES))}")
    return [actor.hear() for actor in actors]


def _steps_per_second_alone(config) -> float:
    with config.environment(
        num_envs=config.environments_per_actor, training=True, seed=0
    ) as environment:
        environment.reset()
        action = np.zeros(config.environments_per_actor, np.int32)
        start_secs = time.perf_counter()
        for _ in range(_ALONE_STEPS):
            environment.step(action)
        return config.environments_per_actor * _ALONE_STEPS / (time.perf_counter() - start_secs)
