"""What the parts' CPU costs allow the whole system.

CPU seconds are each the median of interleaved turns of its own process, and there are C cores.
Not among the costs: evaluation, publishing, priorities, reports, checkpoints.

Ape-X: how often a transition is learnt from is free. With

    c_env   = environment + inference + assembling + insertion (actor and server side)
    c_learn = training + sampling (client and server side)

of an environment step and of a learner step, f environment steps and u learner steps in a second
use f c_env + u c_learn cores, so that the mix u/f that was measured can run faster by

    C / (f c_env + u c_learn)

at most: the limit is f and u times this factor, and the share of the limit that is reached is its
inverse.

IMPALA: each environment step is learnt from once, as a step of a fresh unroll, so that the mix is
given. A learner step on B unrolls of T steps, F of them fresh, belongs to F T environment steps,
and

    c = environment + inference + training / (F T)

allows C / c environment steps/s at most. This is the limit by what has to be computed; another one
has the transport in it: assembling, and insertion and reading on both sides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tfdrl.benchmarks.measuring import Cost


class PartCost(NamedTuple):
    """CPU seconds of one unit of one part, and the role that spends them."""

    part: str
    unit: str
    role: str
    cpu_secs: float


def part_costs(costs: Mapping[str, Mapping[str, Cost]], batch_size: int) -> list[PartCost]:
    """The table of the CPU costs of Ape-X's parts.

    Args:
      costs: {part: {variant: Cost}} of the parts a, b, c and d.
      batch_size: transitions of a learner step.
    """
    a, b, c, d = (costs[part] for part in "abcd")
    step, update = "environment step", "learner step"
    bare, inferring, actor = (a[name].cpu_secs for name in ("environment", "inference", "actor"))
    reading = c["learner"]
    return [
        PartCost("environment", step, "actor", bare),
        PartCost("inference", step, "actor", inferring - bare),
        # May be negative: the actor calls its network by a shorter way than the bare loop.
        PartCost("exploration, adapter, assembling", step, "actor", actor - inferring),
        PartCost("insertion, actor side", step, "actor", b["writer"].cpu_secs),
        PartCost("insertion, server side", step, "replay", b["writer"].server_cpu_secs),
        PartCost("training", update, "learner", d["train"].cpu_secs),
        PartCost("sampling, learner side", update, "learner", batch_size * reading.cpu_secs),
        PartCost("sampling, server side", update, "replay", batch_size * reading.server_cpu_secs),
    ]


class Limit(NamedTuple):
    """The limit at the measured mix, and the share of it that was reached."""

    environment_step_cpu_secs: float
    learner_step_cpu_secs: float
    frames_per_second: float
    learner_steps_per_second: float
    reached: float


def limit(
    parts: Sequence[PartCost],
    cores: int,
    frames_per_second: float,
    frames_per_step: int,
    learner_steps_per_second: float,
) -> Limit:
    """Ape-X's limit, as the module's docstring says."""
    step, update = (
        sum(part.cpu_secs for part in parts if part.unit == unit)
        for unit in ("environment step", "learner step")
    )
    used = frames_per_second / frames_per_step * step + learner_steps_per_second * update
    factor = cores / used
    return Limit(
        step, update, factor * frames_per_second, factor * learner_steps_per_second, 1.0 / factor
    )


#: The parts of IMPALA that are not transport.
COMPUTATION = ("environment", "inference", "training")


def unroll_part_costs(
    costs: Mapping[str, Mapping[str, Cost]],
    unroll_steps: int,
    batch_size: int,
    fresh_unrolls: int,
) -> list[PartCost]:
    """The table of the CPU costs of IMPALA's parts, all for one environment step.

    Args:
      costs: {part: {variant: Cost}} of the parts a, b, c and d.
      unroll_steps: T.
      batch_size: B, unrolls of a learner step.
      fresh_unrolls: F of them; the rest is replayed.
    """
    a, b, c, d = (costs[part] for part in "abcd")
    bare, inferring, actor = (a[name].cpu_secs for name in ("environment", "inference", "actor"))
    steps = fresh_unrolls * unroll_steps  # that a learner step uses up
    writing, reading = b["writer"], c["learner"]
    found = [
        ("environment", "actor", bare),
        ("inference", "actor", inferring - bare),
        # May be negative: the actor calls its network by a shorter way than the bare loop.
        ("adapter, assembling", "actor", actor - inferring),
        ("insertion, actor side", "actor", writing.cpu_secs / unroll_steps),
        ("insertion, server side", "replay", writing.server_cpu_secs / unroll_steps),
        ("training", "learner", d["train"].cpu_secs / steps),
        ("reading, learner side", "learner", batch_size * reading.cpu_secs / steps),
        ("reading, server side", "replay", batch_size * reading.server_cpu_secs / steps),
    ]
    return [PartCost(part, "environment step", role, secs) for part, role, secs in found]


class UnrollLimit(NamedTuple):
    """CPU seconds of one environment step through some parts, and the steps/s they allow."""

    environment_step_cpu_secs: float
    environment_steps_per_second: float


def unroll_limit(parts: Sequence[PartCost], cores: int) -> UnrollLimit:
    """IMPALA's limit by these parts, as the module's docstring says."""
    cpu_secs = sum(part.cpu_secs for part in parts)
    return UnrollLimit(cpu_secs, cores / cpu_secs)
