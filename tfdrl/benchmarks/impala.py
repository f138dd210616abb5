"""IMPALA as the benchmark sees it."""

from __future__ import annotations

from collections.abc import Sequence

from tfdrl.architectures.impala import Impala
from tfdrl.benchmarks import limits
from tfdrl.benchmarks.page import Figure
from tfdrl.benchmarks.subject import Comparison, Costs, Measured, Part, Subject
from tfdrl.benchmarks.system import System

_ACTING = "tfdrl.benchmarks.impala_acting"
_LEARNING = "tfdrl.benchmarks.impala_learning"
_PARTS = {
    "a": Part(
        f"{_ACTING}:stepping",
        "Environment stepping",
        "environment steps",
        {
            "environment": "bare vector environment",
            "inference": "bare environment + bare inference",
            "actor": "actor with unrolls, without writing",
        },
        Comparison(
            "actor with unrolls, without writing / bare environment + bare inference",
            *("actor", "inference"),
        ),
    ),
    "b": Part(
        f"{_ACTING}:inserting",
        "Insertion into the queue",
        "unrolls",
        {"raw": "bare TrajectoryWriter", "writer": "UnrollWriter"},
        Comparison("UnrollWriter / bare TrajectoryWriter", "writer", "raw"),
    ),
    "c": Part(
        f"{_LEARNING}:reading",
        "Reading from the queue",
        "unrolls",
        {"raw": "bare TrajectoryDataset, batched", "learner": "learner's dataset and queue"},
        Comparison(
            "learner's dataset and queue / bare TrajectoryDataset, batched", "learner", "raw"
        ),
    ),
    "d": Part(
        f"{_LEARNING}:learning",
        "Training in memory",
        "learner steps",
        {
            "train": "Trainer.train_once on one batch",
            "vtrace": "V-trace alone, of such a batch",
        },
        # Seconds are the inverse of a rate: this is V-trace's time in that of a step.
        Comparison("V-trace's share of a learner step", "train", "vtrace", unit="small ratio"),
    ),
}
_METRICS = {
    "learner/waiting_share": ("learner waits for unrolls", "share of time"),
    "actor/waiting_share": ("actors wait for the queue", "share of time"),
    "learner/policy_lag": ("policy lag", "learner steps"),
}
#: Of the limit by environment, inference and training alone.
_AIM = 0.75


def _bindings(config: Impala, text: str) -> list[str]:
    bindings = ["impala.queue_capacity_unrolls = 1000000"]  # it is never full
    if config.learners > 1:  # the parts are those of one learner, who trains alone
        bindings += ["impala.learners = 1", "impala.strategy = None"]
        bindings += ["strategy.kind = 'default'"] * ("strategy.kind" in text)
    return bindings


def _part_costs(costs: Costs, config: Impala) -> list[limits.PartCost]:
    return limits.unroll_part_costs(
        costs, config.unroll_steps, config.batch_size, config.fresh_unrolls
    )


def _rates(system: System, frames_per_step: int) -> list[Figure]:
    steps_per_second = system.frames_per_second / frames_per_step
    return [Figure("environment steps", steps_per_second, "environment steps/s")]


def _limits(parts: Sequence[limits.PartCost], measured: Measured) -> list[Figure]:
    figures = [Figure("cores", measured.cores, "cores")]
    computation = [part for part in parts if part.part in limits.COMPUTATION]
    every = ", ".join(limits.COMPUTATION)
    figures += _limit(computation, every, measured, _AIM)
    figures += _limit(parts, "all parts", measured, None)
    if measured.system is not None:
        steps_per_second = measured.system.frames_per_second / measured.frames_per_step
        used = steps_per_second * sum(part.cpu_secs for part in parts)
        words = "CPU of the parts / CPU that the run used"
        # Unlike those above it says little less on a machine that others use too.
        figures.append(Figure(words, used / measured.system.cores, "ratio"))
    return figures


def _limit(
    parts: Sequence[limits.PartCost], words: str, measured: Measured, aim: float | None
) -> list[Figure]:
    cpu_secs, steps_per_second = limits.unroll_limit(parts, measured.cores)
    figures = [
        Figure(f"environment step: {words}", 1e6 * cpu_secs, "CPU us"),
        Figure(f"limit by {words}", steps_per_second, "environment steps/s"),
    ]
    if measured.system is not None:
        reached = measured.system.frames_per_second / measured.frames_per_step / steps_per_second
        figures.append(Figure(f"reached / limit by {words}", reached, "ratio", aim))
    return figures


SUBJECT = Subject(
    name="IMPALA",
    config=Impala,
    parts=_PARTS,
    bindings=_bindings,
    metrics=_METRICS,
    rates=_rates,
    part_costs=_part_costs,
    limits=_limits,
)
