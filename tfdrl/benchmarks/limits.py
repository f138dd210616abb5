"""What the parts' CPU costs allow the whole system.

With CPU seconds, each the median of interleaved turns of its own process,

    c_env   = environment + inference + assembling + insertion (actor and server side)
    c_learn = training + sampling (client and server side)

of an environment step and of a learner step, f environment steps and u learner steps in a second
use f c_env + u c_learn cores. There are C, so that the mix u/f that was measured can run faster by

    C / (f c_env + u c_learn)

at most: the limit is f and u times this factor, and the share of the limit that is reached is its
inverse. Not among the costs: evaluation, publishing, priorities, reports, checkpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from tfdrl.benchmarks.measuring import Cost


class PartCost(NamedTuple):
    """CPU seconds of one unit of one part, and the role that spends them."""

    part: str
    unit: str
    role: str
    cpu_secs: float


def part_costs(costs: Mapping[str, Mapping[str, Cost]], batch_size: int) -> list[PartCost]:
    """The table of the parts' CPU costs.

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
    parts: list[PartCost],
    cores: int,
    frames_per_second: float,
    frames_per_step: int,
    learner_steps_per_second: float,
) -> Limit:
    """The limit of the module's docstring."""
    step, update = (
        sum(part.cpu_secs for part in parts if part.unit == unit)
        for unit in ("environment step", "learner step")
    )
    used = frames_per_second / frames_per_step * step + learner_steps_per_second * update
    factor = cores / used
    return Limit(
        step, update, factor * frames_per_second, factor * learner_steps_per_second, 1.0 / factor
    )
