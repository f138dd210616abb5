"""Gorila and A3C as the benchmark sees them: what a gradient's way costs, and what workers add.

Part a: cycles of a worker (gradient, push, newest parameters) beside the same gradient with the
same update in the worker's own memory. Part b: the whole program with more and more workers.
"""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tfdrl.benchmarks import system
from tfdrl.benchmarks.measuring import Rounds, Turn, cost, ratio
from tfdrl.benchmarks.page import Figure, Section
from tfdrl.errors import ConfigurationError

#: Workers of part b, and the least speed-up over one that is wanted.
_SPEED_UPS = {1: None, 2: 1.8, 4: None, 8: 6.0}


class Cycles(NamedTuple):
    """What `parameter_client` measured.

    turns                by variant, "cycle" and "local"
    communication_share  of a cycle's time
    nbytes               of one copy of the parameters
    """

    turns: dict[str, list[Turn]]
    communication_share: float
    nbytes: int

    @classmethod
    def read(cls, path: pathlib.Path) -> Cycles:
        """What it left in a file."""
        found = json.loads(path.read_text())
        turns = {k: [Turn(*turn) for turn in v] for k, v in found["turns"].items()}
        return cls(turns, found["communication_share"], found["nbytes"])


def workers_binding(config) -> str:
    """The setting that says how many workers there are.

    Raises ConfigurationError for an architecture whose speed does not hang on one number.
    """
    name = type(config).__name__.lower()
    if not getattr(config, "bundled", True):
        raise ConfigurationError(
            "--parts=b: gorila.bundled = False has actors and learners, not workers; leave b out"
        )
    return f"{name}.workers"


def cycles_section(config, measured: Cycles) -> Section:
    """Part a."""
    costs = {name: cost(turns) for name, turns in measured.turns.items()}
    per_second = costs["cycle"].units_per_second
    return Section(
        f"A worker's cycle, parameter servers: {config.parameter_servers} (a)",
        [
            Figure("gradient, push, newest parameters", per_second, "cycles/s"),
            Figure(
                "the same gradient and update locally", costs["local"].units_per_second, "cycles/s"
            ),
            Figure(
                "of the local speed",
                ratio(measured.turns["cycle"], measured.turns["local"]),
                "ratio",
            ),
            Figure("time spent communicating", measured.communication_share, "ratio"),
            Figure("parameters", measured.nbytes / 1e6, "MB"),
            Figure("moved, up and down", 2e-6 * measured.nbytes * per_second, "MB/s"),
            Figure("worker: CPU for a cycle", 1e6 * costs["cycle"].cpu_secs, "us"),
            Figure("server: CPU for a cycle", 1e6 * costs["cycle"].server_cpu_secs, "us"),
        ],
    )


def speed_up_section(run: Callable[[int], system.System], frames_per_step: int) -> Section:
    """Part b: runs the whole with each number of workers.

    Args:
      run: `run(workers)`.
      frames_per_step: of the environment.
    """
    rates = {}
    for workers in _SPEED_UPS:
        print(f"{workers} workers", file=sys.stderr, flush=True)
        rates[workers] = run(workers).frames_per_second / frames_per_step
    figures = [
        Figure(_crew(workers), rate, "environment steps/s") for workers, rate in rates.items()
    ]
    for workers, aim in _SPEED_UPS.items():
        if workers > 1:
            figures.append(
                Figure(f"{_crew(workers)} / 1 worker", rates[workers] / rates[1], "times", aim)
            )
    return Section("Speed with more workers (b)", figures)


def whole_section(config, whole: system.System, frames_per_step: int) -> Section:
    """Part e."""
    figures = [
        Figure("measured for", whole.secs, "s"),
        Figure("environment steps", whole.frames_per_second / frames_per_step, "steps/s"),
        Figure("updates", whole.learner_steps_per_second, "updates/s"),
    ]
    if "actor/waiting_share" in whole.metrics:
        share = whole.metrics["actor/waiting_share"]
        figures.append(Figure("workers' time spent communicating", share, "ratio"))
    for name, usage in whole.processes.items():
        figures.append(Figure(f"{name}: CPU", usage.cores, "cores"))
        figures.append(Figure(f"{name}: memory (RSS)", usage.rss_mb, "MB"))
    figures.append(Figure("everything else on this machine: CPU", whole.other_cores, "cores"))
    return Section("Whole system (e)", figures)


def rounds_arguments(rounds: Rounds) -> Sequence[str]:
    """For `parameter_client`."""
    return [f"--rounds={rounds.count}", f"--round_secs={rounds.secs}"]


def _crew(workers: int) -> str:
    return "1 worker" if workers == 1 else f"{workers} workers"
