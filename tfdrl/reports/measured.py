"""The numbers of a run's figure and table, from what its processes have logged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from tfdrl.reports.events import Series
from tfdrl.reports.run import Run
from tfdrl.rpc.usage import Flow, Usage

#: Items that an actor inserts into a replay or a queue, by the counter that counts them.
ITEMS = {
    "actor/transitions": "transitions",
    "actor/unrolls": "unrolls",
    "actor/sequences": "sequences",
}


class RoleNumbers(NamedTuple):
    """What the processes of one role did while the run trained; None for what nobody measured.

    replicas       how many there are
    cpu_cores      of all together
    memory_mb      of all together, at most
    waiting_share  of their time, mean, 0 to 1: for data, for room, or for a replay ratio
    flows          per second, of all together, by the role that they connect to
    """

    replicas: int
    cpu_cores: float | None
    memory_mb: float | None
    waiting_share: float | None
    flows: dict[str, FlowRate]


class FlowRate(NamedTuple):
    """Per second, of all processes of a role: what they send to another, and what comes back."""

    sent_mb: float
    received_mb: float
    messages: float


class Numbers(NamedTuple):
    """What a run did, as means over its training; None for what nobody measured.

    frames, learner_steps, training_secs  at the last look
    frames_rate, steps_rate               per second
    items_rate, items                     that actors insert per second, and what they are called
    pulls_rate                            parameter sets that actors take over per second
    gradients_rate, dropped_rate          applied by parameter servers, and not, per second
    policy_lag                            learner steps between acting and training
    gradient_age                          updates between computing a gradient and applying it
    sample_age_secs                       from acting to training
    replay_size                           items, at the end
    roles                                 by name
    cores                                 of the machine
    """

    frames: float | None
    learner_steps: float | None
    training_secs: float | None
    frames_rate: float | None
    steps_rate: float | None
    items_rate: float | None
    items: str
    pulls_rate: float | None
    gradients_rate: float | None
    dropped_rate: float | None
    policy_lag: float | None
    gradient_age: float | None
    sample_age_secs: float | None
    replay_size: float | None
    roles: dict[str, RoleNumbers]
    cores: int

    @property
    def dropped_share(self) -> float | None:
        """Of the gradients that parameter servers were sent, or that learners withheld."""
        if self.dropped_rate is None or not self.gradients_rate:
            return None
        return self.dropped_rate / (self.gradients_rate + self.dropped_rate)

    @property
    def cpu_cores(self) -> float | None:
        """Of all roles together."""
        return _sum(role.cpu_cores for role in self.roles.values())

    @property
    def memory_mb(self) -> float | None:
        """Of all roles together."""
        return _sum(role.memory_mb for role in self.roles.values())

    @property
    def bytes_per_frame(self) -> float | None:
        """That pass between roles, both ways, for each environment frame."""
        flows = [flow for role in self.roles.values() for flow in role.flows.values()]
        if not flows or not self.frames_rate:
            return None
        return 1e6 * sum(flow.sent_mb + flow.received_mb for flow in flows) / self.frames_rate


def of(run: Run) -> Numbers:
    """Measures a run."""
    frames = run.of_chief("environment/frames")
    result = run.result
    steps = frames._replace(values=frames.steps.astype(float))
    worker = "actor" if run.role("actor") else "worker"
    items = next((tag for tag in ITEMS if run.series(tag, worker)), None)
    verdicts = _verdicts(run)
    return Numbers(
        frames=result.get("frames", _last(frames)),
        learner_steps=result.get("learner_steps", _last(steps)),
        training_secs=result.get("training_secs", _passed(run)),
        frames_rate=_growth(run, frames),
        steps_rate=_growth(run, steps),
        items_rate=_growth_of_all(run, items, worker) if items else None,
        items=ITEMS.get(items, "items"),
        pulls_rate=_growth_of_all(run, "actor/parameter_pulls", worker) or None,
        gradients_rate=verdicts.pop("accepted", None),
        dropped_rate=_sum(verdicts.values()),
        policy_lag=_mean(run, "learner/policy_lag"),
        gradient_age=_mean(run, "gradients/age"),
        sample_age_secs=_mean(run, "learner/sample_age_secs"),
        replay_size=_last(run.of_chief("replay/size")),
        roles={role.name: _role(run, role.name, role.replicas) for role in run.program.roles},
        cores=run.facts.cores,
    )


def waiting(run: Run, role: str) -> list[list[Series]]:
    """Of each process of a role: its shares of time spent waiting, which add up."""
    tags = [f"{_prefix(role)}/{name}" for name in ("waiting_share", "ratio_waiting_share")]
    found = [[s[tag] for tag in tags if tag in s] for s in run.scalars.get(role, [])]
    return [shares for shares in found if shares]


def _prefix(role: str) -> str:
    return "actor" if role in ("actor", "worker") else "learner"


def _role(run: Run, name: str, replicas: int) -> RoleNumbers:
    means = [
        sum(_in_window(run, share).mean() for share in shares)
        for shares in waiting(run, name)
        if all(len(_in_window(run, share)) for share in shares)
    ]
    processes = [found for starts in run.usage.get(name, []) if (found := _busiest(run, starts))]
    scale = replicas / len(processes) if processes else 1.0  # of more than were read
    flows: dict[str, list[float]] = {}
    for looks in processes:
        for role, rates in _flow_rates(looks).items():
            total = flows.setdefault(role, [0.0, 0.0, 0.0])
            flows[role] = [a + scale * b for a, b in zip(total, rates)]
    return RoleNumbers(
        replicas,
        scale * sum(map(_cores, processes)) if processes else None,
        scale * sum(max(u.memory_mb for u in looks) for looks in processes) if processes else None,
        min(float(np.mean(means)), 1.0) if means else None,
        {role: FlowRate(*rates) for role, rates in flows.items() if role != "clients"},
    )


def _busiest(run: Run, starts: list[list[Usage]]) -> list[Usage]:
    """The looks of one process while it trained: of its longest start, two at least; or none."""
    begin, end = run.window
    longest = max(starts, key=len, default=[])
    within = [usage for usage in longest if begin <= usage.secs <= end + 1.0]
    return within if len(within) > 1 else longest if len(longest) > 1 else []


def _cores(looks: list[Usage]) -> float:
    first, last = looks[0], looks[-1]
    return (last.cpu_secs - first.cpu_secs) / max(last.secs - first.secs, 1e-3)


def _flow_rates(looks: list[Usage]) -> dict[str, tuple[float, float, float]]:
    first, last = looks[0], looks[-1]
    passed_secs = max(last.secs - first.secs, 1e-3)
    found = {}
    for role, flow in last.flows.items():
        before = first.flows.get(role, Flow())
        sent, received, messages = ((b - a) / passed_secs for a, b in zip(before, flow))
        found[role] = (sent / 1e6, received / 1e6, messages)
    return found


def _verdicts(run: Run) -> dict[str, float]:
    """Gradients per second by what the parameter servers made of them."""
    tags = [tag for scalars in run.scalars.get(run.chief, [])[:1] for tag in scalars]
    names = [tag.partition("/")[2] for tag in tags if tag.startswith("gradients/")]
    rates = {name: _growth(run, run.of_chief(f"gradients/{name}")) for name in names}
    return {name: rate for name, rate in rates.items() if name != "age" and rate is not None}


def _within(run: Run, series: Series) -> np.ndarray:
    begin, end = run.window
    return (begin <= series.secs) & (series.secs <= end + 1.0)


def _in_window(run: Run, series: Series) -> np.ndarray:
    values = series.values[_within(run, series)]
    return values[np.isfinite(values)]


def _mean(run: Run, tag: str) -> float | None:
    roles = [run.chief, "learner"] if run.role("learner") else [run.chief]
    found = [_in_window(run, series) for role in roles for series in run.series(tag, role)]
    values = np.concatenate(found) if found else np.zeros(0)
    return float(values.mean()) if len(values) else None


def _growth(run: Run, series: Series) -> float | None:
    """Of a counter, per second of the training; None with fewer than two values."""
    inside = _within(run, series)
    secs, values = series.secs[inside], series.values[inside]
    if len(secs) < 2 or secs[-1] <= secs[0]:
        return None
    # After a restart a process counts from 0: what it lost then is not known.
    return float(np.maximum(np.diff(values), 0.0).sum() / (secs[-1] - secs[0]))


def _growth_of_all(run: Run, tag: str, role: str) -> float | None:
    found = run.series(tag, role)
    rates = [rate for series in found if (rate := _growth(run, series)) is not None]
    known = run.role(role)
    return sum(rates) * (known.replicas / len(rates)) if rates and known else None


def _last(series: Series) -> float | None:
    return float(series.values[-1]) if len(series.values) else None


def _passed(run: Run) -> float | None:
    begin, end = run.window
    return end - begin if np.isfinite(end) else None


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None
