"""The costs that a plan is made of (`planning.costs`), from turns of the parts on this machine.

Each part of an architecture gives some: what its turns say, less what belongs to another name. A
time of one who waits for a server has the server's CPU time taken off, since the plan adds it where
it is spent.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.metadata
import os
import pathlib
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tfdrl.architectures.a3c import A3c
from tfdrl.architectures.apex import Apex
from tfdrl.architectures.gorila import Gorila
from tfdrl.architectures.seed import Seed
from tfdrl.benchmarks import parameter_servers, seed
from tfdrl.benchmarks.harness import Bench, Subject
from tfdrl.benchmarks.measuring import Turn, cost, say
from tfdrl.benchmarks.processes import START_LIMIT_SECS
from tfdrl.planning.costs import Cost, as_json

_PARTS = "tfdrl.benchmarks.cost_parts"
_VERSIONS = ("tfdrl", "tensorflow", "tf-agents", "dm-reverb", "grpcio", "numpy")
#: Names and costs; sizes are apart.
Times = dict[str, Cost]


class Timed(NamedTuple):
    """Turns by the names of `planning.costs.TIMES`, and sizes in bytes."""

    turns: Mapping[str, Sequence[Turn]]
    sizes: Mapping[str, float] = {}


def measure(bench: Bench, subject: Subject) -> dict:
    """What `planning.costs.read` reads. Call from the main thread.

    Args:
      bench: with the configuration.
      subject: whose parts they are.
    """
    free = bench.bound(*subject.bindings(bench.config, bench.loaded.text))
    roles = {role.name for role in bench.config.program().roles}
    network = "learner" if isinstance(bench.config, Seed) else "actor"
    found = _asked(free, network if network in roles else "worker", "acting")
    times, sizes = _acting_times(found.turns), dict(found.sizes)
    if isinstance(bench.config, Seed):
        times |= _central(free)
    elif isinstance(bench.config, (A3c, Gorila)):
        times |= _gradients(free)
    else:
        times |= _replayed(free, subject, times)
    if "learner" in roles and not isinstance(bench.config, Gorila):
        times |= _parameters(free)
    return as_json(times, sizes, _about(bench))


def _asked(bench: Bench, role: str, function: str) -> Timed:
    """What one of our functions measures in a process with the threads of a role."""
    with bench.worker(role, f"{_PARTS}:{function}") as worker:
        return worker.hear(START_LIMIT_SECS + _turns_secs(bench, 20))


def _turns_secs(bench: Bench, variants: int) -> float:
    return 2 * variants * bench.settings.rounds.count * bench.settings.rounds.secs


def one(turns: Sequence[Turn], units: float = 1.0, server: bool = False) -> Cost:
    """Of so many units of a turn's work; without the server's time, if one was waited for.

    Nor is the time part of it in which who works was ready and others had the cores: a plan is of
    machines with nothing else to do, and says itself who waits for whom.
    """
    found = cost(turns)
    secs, cpu_secs = units / found.units_per_second, units * found.cpu_secs
    # The larger of both: if it was the server that had the core, its time is in the delay.
    others_secs = units * max(found.delayed_secs, found.server_cpu_secs if server else 0.0)
    # A server that works beside its client is not waited for.
    return Cost(max(secs - others_secs, min(secs, cpu_secs)), cpu_secs)


def less(whole: Cost, part: Cost) -> Cost:
    """What is left of a cost, at least nothing."""
    return Cost(max(whole.secs - part.secs, 0.0), max(whole.cpu_secs - part.cpu_secs, 0.0))


def _acting_times(turns: Mapping[str, Sequence[Turn]]) -> Times:
    return {name: one(found) for name, found in turns.items()}


def _replayed(bench: Bench, subject: Subject, acting: Times) -> Times:
    """Of Ape-X and IMPALA: the table's parts a to d."""
    turns = {}
    for letter in "abcd":
        say(f"part {letter}")
        turns[letter] = subject.parts[letter].measure(bench).turns
    count = bench.config.environments_per_actor
    inference = acting[f"inference.{count}"]
    bare = Cost(inference.secs / count, inference.cpu_secs / count)
    actor = less(one(turns["a"]["actor"]), acting["environment.step"])
    found = {
        "acting.step": less(actor, bare),
        "insert.item": one(turns["b"]["writer"], server=True),
        "insert.item.server": _server(turns["b"]["writer"]),
        "sample.item": one(turns["c"]["learner"], server=True),
        "sample.item.server": _server(turns["c"]["learner"]),
        "training.step": one(turns["d"]["train"]),
    }
    if isinstance(bench.config, Apex):
        found["priorities.update"] = one(_priorities(bench), server=True)
    return found


def _priorities(bench: Bench) -> Sequence[Turn]:
    """Of one learner step, written back to the replay."""
    say("priorities")
    with (
        bench.servers("replay") as servers,
        bench.worker("learner", "tfdrl.benchmarks.apex:prioritising", servers=servers) as worker,
    ):
        return worker.hear(START_LIMIT_SECS + _turns_secs(bench, 1))["priorities"]


def _server(turns: Sequence[Turn]) -> Cost:
    secs = cost(turns).server_cpu_secs
    return Cost(secs, secs)


def _central(bench: Bench) -> Times:
    """Of SEED RL: what its service does beside inference, and training on unrolls."""
    say("messages")
    messages = seed.messages(bench)
    rows = bench.config.environments_per_actor
    times = {f"message.{side}.{rows}": Cost(secs, secs) for side, secs in messages.items()}
    if bench.config.replay_ratio is None:
        say("training")
        with bench.worker("learner", "tfdrl.benchmarks.impala:learning") as worker:
            turns = worker.hear(START_LIMIT_SECS + _turns_secs(bench, 2))
        times["training.step"] = one(turns["train"])
    return times


def _gradients(bench: Bench) -> Times:
    """Of A3C and Gorila: a worker's cycle, and the part of it that is communication."""
    with _servers_and_worker(bench) as worker:
        found = worker.hear(START_LIMIT_SECS + _turns_secs(bench, 2))
    cycle, local = one(found.turns["cycle"]), one(found.turns["local"])
    whole = cost(found.turns["cycle"])
    server_secs = whole.server_cpu_secs
    waited_secs = max(server_secs - whole.delayed_secs, 0.0)  # as `one`: not taken off twice
    push_secs = max(found.communication_share * cycle.secs - waited_secs, 0.0)
    gradient_secs = (1.0 - found.communication_share) * cycle.secs
    push_cpu_secs = min(max(cycle.cpu_secs - local.cpu_secs, 0.0), push_secs)
    return {
        "gradient.step": Cost(gradient_secs, cycle.cpu_secs - push_cpu_secs),
        "gradient.push": Cost(push_secs, push_cpu_secs),
        "gradient.apply": Cost(server_secs, server_secs),
    }


@contextlib.contextmanager
def _servers_and_worker(bench: Bench):
    role = "worker" if "worker" in [r.name for r in bench.config.program().roles] else "learner"
    function = f"{parameter_servers.__name__}:measure_cycles"
    with (
        bench.servers("parameter_server") as servers,
        bench.worker(role, function, servers=servers) as worker,
    ):
        yield worker


def _parameters(bench: Bench) -> Times:
    """One pull of newer parameters."""
    if isinstance(bench.config, Seed):  # nobody pulls
        return {}
    found = _asked(bench, "learner", "pulling")
    return _acting_times(found.turns)


def _about(bench: Bench) -> dict:
    settings = bench.settings
    return {
        "measured": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "architecture": bench.config.program().name,
        "gin_file": list(settings.gin_files),
        "gin_bindings": list(settings.gin_bindings),
        "cores": len(os.sched_getaffinity(0)),
        "processor": _processor(),
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in _VERSIONS},
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:  # run from a checkout
        import tfdrl

        return tfdrl.__version__ if name == "tfdrl" else None


def _processor(read: Callable[[], str] = pathlib.Path("/proc/cpuinfo").read_text) -> str:
    """Its name, where the system says it."""
    with contextlib.suppress(OSError):
        for line in read().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
