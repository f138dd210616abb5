"""Ape-X as the benchmark sees it."""

from __future__ import annotations

from collections.abc import Sequence

from tfdrl.architectures.apex import Apex
from tfdrl.benchmarks import limits
from tfdrl.benchmarks.page import Figure
from tfdrl.benchmarks.subject import Comparison, Measured, Part, Subject

_ACTING = "tfdrl.benchmarks.apex_acting"
_LEARNING = "tfdrl.benchmarks.apex_learning"
_PARTS = {
    "a": Part(
        f"{_ACTING}:stepping",
        "Environment stepping",
        "environment steps",
        {
            "environment": "bare vector environment",
            "inference": "bare environment + bare inference",
            "actor": "actor, without writing",
        },
        Comparison(
            "actor, without writing / bare environment + bare inference",
            *("actor", "inference", 0.60),
        ),
    ),
    "b": Part(
        f"{_ACTING}:inserting",
        "Insertion into replay",
        "transitions",
        {"raw": "bare TrajectoryWriter", "writer": "TransitionWriter"},
        Comparison("TransitionWriter / bare TrajectoryWriter", "writer", "raw", 0.50),
    ),
    "c": Part(
        f"{_LEARNING}:sampling",
        "Sampling from replay",
        "transitions",
        {"raw": "bare TrajectoryDataset, batched", "learner": "learner's dataset and queue"},
        Comparison(
            "learner's dataset and queue / bare TrajectoryDataset, batched", "learner", "raw"
        ),
    ),
    "d": Part(
        f"{_LEARNING}:learning",
        "Training in memory",
        "learner steps",
        {"train": "Trainer.train on one batch"},
    ),
}
_METRICS = {
    "learner/waiting_share": ("learner waits for samples", "share of time"),
    "actor/waiting_share": ("actors wait for the replay", "share of time"),
    "learner/policy_lag": ("policy lag", "learner steps"),
}
#: The table of the parts is sampled at once and holds nobody to a ratio.
_FREE_TABLE = ("replay_table.min_size = 1", "replay_table.samples_per_insert = None")


def _bindings(config: Apex, text: str) -> list[str]:
    del config
    return [binding for binding in _FREE_TABLE if "replay_table" in text]


def _limits(parts: Sequence[limits.PartCost], measured: Measured) -> list[Figure]:
    system, cores = measured.system, measured.cores
    if system is None:  # the limit is that of the measured mix
        return []
    found = limits.limit(
        parts,
        cores,
        system.frames_per_second,
        measured.frames_per_step,
        system.learner_steps_per_second,
    )
    parts_cores = found.reached * cores
    return [
        Figure("cores", cores, "cores"),
        Figure("environment step, all parts", 1e6 * found.environment_step_cpu_secs, "CPU us"),
        Figure("learner step, all parts", 1e6 * found.learner_step_cpu_secs, "CPU us"),
        Figure("limit at the measured mix", found.frames_per_second, "frames/s"),
        Figure("limit at the measured mix", found.learner_steps_per_second, "learner steps/s"),
        Figure("reached / limit", found.reached, "ratio"),
        # Unlike the one above it says little less on a machine that others use too.
        Figure("CPU of the parts / CPU that the run used", parts_cores / system.cores, "ratio"),
    ]


SUBJECT = Subject(
    name="Ape-X",
    config=Apex,
    parts=_PARTS,
    bindings=_bindings,
    metrics=_METRICS,
    rates=lambda system, frames_per_step: [],
    part_costs=lambda costs, config: limits.part_costs(costs, config.batch_size),
    limits=_limits,
)
