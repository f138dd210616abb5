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

from collections.abc import Sequence
from typing import NamedTuple

from tfdrl.benchmarks.harness import Measured
from tfdrl.benchmarks.measuring import Costs
from tfdrl.benchmarks.page import Figure, Section

#: The parts of IMPALA that are not transport.
COMPUTATION = ("environment", "inference", "training")
#: Of IMPALA's limit by these.
_AIM = 0.75


class PartCost(NamedTuple):
    """CPU seconds of one unit of one part, and the role that spends them."""

    part: str
    unit: str
    role: str
    cpu_secs: float


def part_costs(costs: Costs, batch_size: int) -> list[PartCost]:
    """The table of the CPU costs of Ape-X's parts.

    Args:
      costs: {part: {variant: Cost}} of the parts a, b, c and d.
      batch_size: transitions of a learner step.
    """
    words = ("exploration, adapter, assembling", "sampling")
    return _part_costs(costs, words, "learner step", 1.0, 1.0, batch_size)


def _part_costs(costs, words, update, insertions, updates, reads) -> list[PartCost]:
    """That of both architectures.

    `words` are for what the actor does beside environment and inference, and for reading; `update`
    is the unit of the learner's parts. An environment step has so many insertions of part b; an
    `update` has so many units of part d, and reads so many of part c.
    """
    step, writing, reading = "environment step", costs["b"]["writer"], costs["c"]["learner"]
    bare, inferring, actor = (
        costs["a"][name].cpu_secs for name in ("environment", "inference", "actor")
    )
    return [
        PartCost("environment", step, "actor", bare),
        PartCost("inference", step, "actor", inferring - bare),
        # May be negative: the actor calls its network by a shorter way than the bare loop.
        PartCost(words[0], step, "actor", actor - inferring),
        PartCost("insertion, actor side", step, "actor", insertions * writing.cpu_secs),
        PartCost("insertion, server side", step, "replay", insertions * writing.server_cpu_secs),
        PartCost("training", update, "learner", updates * costs["d"]["train"].cpu_secs),
        PartCost(f"{words[1]}, learner side", update, "learner", reads * reading.cpu_secs),
        PartCost(f"{words[1]}, server side", update, "replay", reads * reading.server_cpu_secs),
    ]


class Limit(NamedTuple):
    """CPU seconds of a step through all parts, and the share of the limit that was reached."""

    environment_step_cpu_secs: float
    learner_step_cpu_secs: float
    reached: float


def limit(
    parts: Sequence[PartCost],
    cores: int,
    environment_steps_per_second: float,
    learner_steps_per_second: float = 0.0,
) -> Limit:
    """What the module's docstring says, at this mix.

    Args:
      parts: that are counted.
      cores: C.
      environment_steps_per_second: f; for the limit divide it by what was reached.
      learner_steps_per_second: u; 0 where all costs are those of an environment step.
    """
    step, update = (
        sum(part.cpu_secs for part in parts if part.unit == unit)
        for unit in ("environment step", "learner step")
    )
    used = environment_steps_per_second * step + learner_steps_per_second * update
    return Limit(step, update, used / cores)


def unroll_part_costs(
    costs: Costs, unroll_steps: int, batch_size: int, fresh_unrolls: int
) -> list[PartCost]:
    """The table of the CPU costs of IMPALA's parts, all for one environment step.

    Args:
      costs: {part: {variant: Cost}} of the parts a, b, c and d.
      unroll_steps: T.
      batch_size: B, unrolls of a learner step.
      fresh_unrolls: F of them; the rest is replayed.
    """
    updates = 1.0 / (fresh_unrolls * unroll_steps)  # a learner step uses up so many steps
    words = ("adapter, assembling", "reading")
    scales = (1.0 / unroll_steps, updates, batch_size * updates)
    return _part_costs(costs, words, "environment step", *scales)


def apex(costs: Costs, measured: Measured) -> list[Section]:
    """The tables of Ape-X's costs and limit."""
    parts = part_costs(costs, measured.config.batch_size)
    system, cores = measured.system, measured.cores
    if system is None:  # the limit is that of the measured mix
        return _tables(parts, [])
    frames, updates = system.frames_per_second, system.learner_steps_per_second
    step, update, reached = limit(parts, cores, measured.steps_per_second, updates)
    figures = [
        Figure("cores", cores, "cores"),
        Figure("environment step, all parts", 1e6 * step, "CPU us"),
        Figure("learner step, all parts", 1e6 * update, "CPU us"),
        Figure("limit at the measured mix", frames / reached, "frames/s"),
        Figure("limit at the measured mix", updates / reached, "learner steps/s"),
        Figure("reached / limit", reached, "ratio"),
        _explained(reached, measured),
    ]
    return _tables(parts, figures)


def impala(costs: Costs, measured: Measured) -> list[Section]:
    """The tables of IMPALA's costs, its limit by what is computed, and that by all parts."""
    config, cores = measured.config, measured.cores
    parts = unroll_part_costs(costs, config.unroll_steps, config.batch_size, config.fresh_unrolls)
    computation = [part for part in parts if part.part in COMPUTATION]
    figures, reached = [Figure("cores", cores, "cores")], 0.0
    for some, words, aim in (
        (computation, ", ".join(COMPUTATION), _AIM),
        (parts, "all parts", None),
    ):
        step, _, of_one_a_second = limit(some, cores, 1.0)
        figures += [
            Figure(f"environment step: {words}", 1e6 * step, "CPU us"),
            Figure(f"limit by {words}", 1.0 / of_one_a_second, "environment steps/s"),
        ]
        if measured.system is not None:
            reached = limit(some, cores, measured.steps_per_second).reached
            figures.append(Figure(f"reached / limit by {words}", reached, "ratio", aim))
    if measured.system is not None:
        figures.append(_explained(reached, measured))  # by all parts, the last of the two
    return _tables(parts, figures)


def _explained(reached: float, measured: Measured) -> Figure:
    """Unlike the share of the limit it says little less on a machine that others use too."""
    words = "CPU of the parts / CPU that the run used"
    return Figure(words, reached * measured.cores / measured.system.cores, "ratio")


def _tables(parts: Sequence[PartCost], limits: list[Figure]) -> list[Section]:
    costs = [
        Figure(f"{part.part} ({part.role})", 1e6 * part.cpu_secs, f"CPU us/{part.unit}")
        for part in parts
    ]
    tables = [Section("CPU costs of the parts (a to d)", costs)]
    if limits:
        title = "Limit by the parts' CPU costs (see tfdrl/benchmarks/limits.py)"
        tables.append(Section(title, limits))
    return tables
