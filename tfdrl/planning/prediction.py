"""What a program would do on machines: rates, the bottleneck, lag, memory, price."""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import simpy

from tfdrl.errors import ConfigurationError
from tfdrl.planning import (
    central_inference,
    parameter_servers,
    policy_copies,
    prioritised_replay,
)
from tfdrl.planning.costs import Costs
from tfdrl.planning.machines import Machines
from tfdrl.planning.settings_of_gin import table_sizes
from tfdrl.planning.site import Counts, Site, Stragglers
from tfdrl.planning.site import replicas as replicas_of
from tfdrl.topology import Program


class Model(NamedTuple):
    """Who simulates an architecture, and the costs that cannot be left out."""

    start: Callable[[Site, Any, int], None]  # (site, config, frames_per_step)
    costs: tuple[str, ...] = ("environment.step", "inference", "training.step")


_GRADIENTS = ("environment.step", "inference", "gradient.step")
MODELS: Mapping[str, Model] = {
    "impala": Model(policy_copies.start),
    "seed": Model(central_inference.start),
    "apex": Model(prioritised_replay.start),
    "r2d2": Model(prioritised_replay.start),
    "a3c": Model(parameter_servers.start, _GRADIENTS),
    "gorila": Model(parameter_servers.start, _GRADIENTS),
}


class _Wanted(NamedTuple):
    """Learner steps, and turns of everybody, that are simulated at least."""

    learner_steps: int
    turns: int


#: Roles whose processes make environment steps.
ACTING = ("actor", "worker")
#: Turns that are measured: of all together, and of each. A mean of so many is within 3 % of what
#: it would come to (1 / sqrt(1280)) even where a turn varies by as much as it takes; four of each
#: let what the first turns have queued pass.
_ALL_TURNS, _LEAST_TURNS, _MOST_TURNS = 1280, 4, 20
_WARM_UP = _Wanted(20, _LEAST_TURNS)
_MEASURED_LEARNER_STEPS = 50
_LOOK_EVENTS = 2_000
#: A station that is in use so much more than all processes work is what they wait for.
_CLOSE = 0.02


class Subject(NamedTuple):
    """What is planned for.

    Attributes:
      program, config: of the architecture.
      frames_per_step: of the environment.
      costs: of the parts.
      stragglers: among those that act.
      events: that a simulation may take at most.
    """

    program: Program
    config: Any
    frames_per_step: int
    costs: Costs
    stragglers: Stragglers = Stragglers()
    events: int = 400_000


class Prediction(NamedTuple):
    """Of one set of machines.

    Attributes:
      replicas: of each role.
      frames_per_second, learner_steps_per_second: over the simulated time that was measured.
      use: share of its time or capacity that each station and each role works, the highest first.
      bottleneck: the first of these that others wait for.
      lag_steps: mean policy lag in learner steps (A3C, Gorila: a gradient's age in updates); None
        if nothing was trained on.
      replay_bytes: of a full replay; None without one, or if the size of its items is not known.
      dollars_per_billion_frames: None if a price is missing.
      simulated_secs: that were measured.
      is_settled: whether these were as long as is wanted; else `Subject.events` ended them, and
        what was full or empty at the start may still count.
    """

    replicas: Mapping[str, int]
    frames_per_second: float
    learner_steps_per_second: float
    use: Mapping[str, float]
    bottleneck: str
    lag_steps: float | None
    replay_bytes: float | None
    dollars_per_billion_frames: float | None
    simulated_secs: float
    is_settled: bool


def predict(
    subject: Subject, machines: Machines, replicas: dict[str, int] | None = None
) -> Prediction:
    """Simulates.

    Args:
      subject: what is planned for.
      machines: what there is.
      replicas: of a role, in the place of what machines or gin file say.

    Raises:
      ConfigurationError: an architecture without a model, a cost that is missing, more processes
        than the events of the simulation.
    """
    program = subject.program
    if program.name not in MODELS:
        raise ConfigurationError(
            f"there is no model of {program.name}: plans are made for {', '.join(MODELS)}"
        )
    model = MODELS[program.name]
    subject.costs.require(model.costs)
    check_size(subject, machines, replicas or {})
    site = Site(program, machines, subject.costs, replicas, subject.stragglers)
    model.start(site, subject.config, subject.frames_per_step)
    before, busy_before, is_settled = _run(site, subject.events)
    after = site.counts
    secs = site.env.now - before.secs
    if not secs:
        raise ConfigurationError(
            f"--events={subject.events:,} end before anything has taken any time; raise them"
        )
    frames = (after.steps - before.counts.steps) * subject.frames_per_step / secs
    use = _use(site, before.counts, busy_before, secs)
    lags = after.lag_count - before.counts.lag_count
    return Prediction(
        {role.name: site.replicas(role.name) for role in program.roles},
        frames,
        (after.learner_steps - before.counts.learner_steps) / secs,
        use,
        _bottleneck(use, site),
        (after.lag_sum - before.counts.lag_sum) / lags if lags else None,
        _replay_bytes(subject),
        _price(machines, replicas, frames),
        secs,
        is_settled,
    )


def check_size(subject: Subject, machines: Machines, replicas: Mapping[str, int]) -> None:
    """Raises ConfigurationError for more machines or processes than turns can be simulated of."""
    roles = subject.program.roles
    processes = sum(replicas_of(role, machines, replicas) for role in roles)
    there = max(processes, sum(group.count for group in machines.groups))
    if there > subject.events:
        raise ConfigurationError(
            f"{there:,} processes or machines cannot be simulated by --events={subject.events:,}, "
            "of which each would need several; plan for fewer, or raise them"
        )


class _Before(NamedTuple):
    secs: float
    counts: Counts


def _run(site: Site, events: int):
    """Counts and busy times at the start of what is measured, and whether it was long enough.

    A third of the events at most goes into the warm-up.
    """
    acting = sum(count for role, count in site.busy.items() if role in ACTING)
    wanted = _Wanted(_MEASURED_LEARNER_STEPS, turns_of_each(acting))
    _step(site, events // 3, _WARM_UP)
    before = _Before(site.env.now, copy.deepcopy(site.counts))
    busy = [station.busy_secs for station in site.stations()]
    return before, busy, _step(site, events - events // 3, wanted)


def turns_of_each(acting: int) -> int:
    """How many turns of each of so many who act alike are measured: of many fewer show as much."""
    return min(max(-(-_ALL_TURNS // acting), _LEAST_TURNS), _MOST_TURNS)


def _step(site: Site, events: int, wanted: _Wanted) -> bool:
    """Simulates until there is what is wanted, and says so, or so many events."""
    counts = site.counts
    learner_steps = counts.learner_steps + wanted.learner_steps
    steps = counts.steps + wanted.turns * site.turn_steps
    for number in range(events):
        try:
            site.env.step()
        except simpy.core.EmptySchedule:
            raise ConfigurationError(
                "in this plan everybody waits for everybody: a batch needs more than all actors "
                "together can have under way; make batches or queues smaller, or take more actors"
            ) from None
        is_time_to_look = number % _LOOK_EVENTS == 0
        if is_time_to_look and counts.learner_steps >= learner_steps and counts.steps >= steps:
            return True
    return False


def _use(site: Site, before: Counts, busy_before: Sequence[float], secs: float):
    """Shares: of stations from their busy time, of roles from the time that they do not wait.

    Stations of one name, such as the cores of all actors' machines, have their mean.
    """
    shares: dict[str, list[float]] = {}
    for station, busy_secs in zip(site.stations(), busy_before):
        shares.setdefault(station.name, []).append((station.busy_secs - busy_secs) / secs)
    found = {name: statistics.fmean(each) for name, each in shares.items()}
    for role, count in site.busy.items():
        waited = site.counts.waiting_secs.get(role, 0.0) - before.waiting_secs.get(role, 0.0)
        found[role] = min(max(1.0 - waited / secs / count, 0.0), 1.0)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def _bottleneck(use: Mapping[str, float], site: Site) -> str:
    """What is used most; of a role that always works and a station that it fills, the station."""
    highest = max(use.values())
    near = [name for name, share in use.items() if share >= highest - _CLOSE]
    return next((name for name in near if name not in site.busy), near[0])


def _replay_bytes(subject: Subject) -> float | None:
    config = subject.config
    if getattr(config, "replay_share", 0.0):
        items = config.replay_capacity_unrolls * subject.program.role("replay").replicas
    elif any(role.name == "replay" for role in subject.program.roles) and hasattr(config, "table"):
        items = table_sizes(config).max_size
    else:
        return None
    size = subject.costs.sizes.get("item.bytes")
    return None if size is None else items * size


def _price(machines: Machines, replicas, frames_per_second: float) -> float | None:
    dollars = machines.dollars_per_hour
    if dollars is None or replicas or not frames_per_second:
        return None
    return dollars / 3600.0 * 1e9 / frames_per_second


def next_machines(subject: Subject, machines: Machines, now: Prediction) -> dict[str, float]:
    """Frames/s gained, as a share, by one machine more of each group that can grow."""
    found = {}
    for group in machines.groups:
        roles = {role.name: role for role in subject.program.roles}
        role = roles.get(group.role)
        if role is None or role.essential:
            continue
        more = predict(subject, machines.with_count(group.role, group.count + 1))
        found[group.role] = more.frames_per_second / now.frames_per_second - 1.0
    return found
