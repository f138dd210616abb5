"""What is measured of each architecture: the tables of their parts."""

from __future__ import annotations

from tfdrl.architectures.a3c import A3c
from tfdrl.architectures.apex import Apex
from tfdrl.architectures.gorila import Gorila
from tfdrl.architectures.impala import Impala
from tfdrl.architectures.seed import Seed
from tfdrl.benchmarks import limits, many_actors, parameter_servers, seed
from tfdrl.benchmarks.harness import Compared, Comparison, Part, Subject


def _apex_bindings(config: Apex, text: str) -> list[str]:
    """The table of the parts is sampled at once and holds nobody to a ratio."""
    del config
    free = ["replay_table.min_size = 1", "replay_table.samples_per_insert = None"]
    return free if "replay_table" in text else []


_MANY = {"n": Part("Many actors (n), which pull and report each second", many_actors.measure)}
_STEPPING = {
    "environment": "bare vector environment",
    "inference": "bare environment + bare inference",
}
_READING = {"raw": "bare TrajectoryDataset, batched", "learner": "learner's dataset and queue"}

APEX = Subject(
    name="Ape-X",
    configs=(Apex,),
    parts={
        "a": Compared(
            "Environment stepping (a)",
            "actor",
            "tfdrl.benchmarks.apex:stepping",
            "environment steps",
            {**_STEPPING, "actor": "actor, without writing"},
            Comparison("actor", "inference", 0.60),
        ),
        "b": Compared(
            "Insertion into replay (b)",
            "actor",
            "tfdrl.benchmarks.apex:inserting",
            "transitions",
            {"raw": "bare TrajectoryWriter", "writer": "TransitionWriter"},
            Comparison("writer", "raw", 0.50),
            serving="replay",
        ),
        "c": Compared(
            "Sampling from replay (c)",
            "learner",
            "tfdrl.benchmarks.apex:sampling",
            "transitions",
            _READING,
            Comparison("learner", "raw"),
            serving="replay",
        ),
        "d": Compared(
            "Training in memory (d)",
            "learner",
            "tfdrl.benchmarks.apex:learning",
            "learner steps",
            {"train": "Trainer.train on one batch"},
        ),
    },
    whole={
        "frames": ("environment frames", "frames/s"),
        "updates": ("learner steps", "learner steps/s"),
        "learner/waiting_share": ("learner waits for samples", "share of time"),
        "actor/waiting_share": ("actors wait for the replay", "share of time"),
        "learner/policy_lag": ("policy lag", "learner steps"),
    },
    asked_for=_MANY,
    bindings=_apex_bindings,
    limits=limits.apex,
)


def _impala_bindings(config: Impala, text: str) -> list[str]:
    bindings = ["impala.queue_capacity_unrolls = 1000000"]  # it is never full
    if config.learners > 1:  # the parts are those of one learner, who trains alone
        bindings += ["impala.learners = 1", "impala.strategy = None"]
        bindings += ["strategy.kind = 'default'"] * ("strategy.kind" in text)
    return bindings


IMPALA = Subject(
    name="IMPALA",
    configs=(Impala,),
    parts={
        "a": Compared(
            "Environment stepping (a)",
            "actor",
            "tfdrl.benchmarks.impala:stepping",
            "environment steps",
            {**_STEPPING, "actor": "actor with unrolls, without writing"},
            Comparison("actor", "inference"),
        ),
        "b": Compared(
            "Insertion into the queue (b)",
            "actor",
            "tfdrl.benchmarks.impala:inserting",
            "unrolls",
            {"raw": "bare TrajectoryWriter", "writer": "UnrollWriter"},
            Comparison("writer", "raw"),
            serving="replay",
        ),
        "c": Compared(
            "Reading from the queue (c)",
            "learner",
            "tfdrl.benchmarks.impala:reading",
            "unrolls",
            _READING,
            Comparison("learner", "raw"),
            serving="replay",
        ),
        "d": Compared(
            "Training in memory (d)",
            "learner",
            "tfdrl.benchmarks.impala:learning",
            "learner steps",
            {
                "train": "Trainer.train_once on one batch",
                "vtrace": "V-trace alone, of such a batch",
            },
            # Seconds are the inverse of a rate: this is V-trace's time in that of a step.
            Comparison(
                "train", "vtrace", words="V-trace's share of a learner step", unit="small ratio"
            ),
        ),
    },
    whole={
        "frames": ("environment frames", "frames/s"),
        "steps": ("environment steps", "environment steps/s"),
        "updates": ("learner steps", "learner steps/s"),
        "learner/waiting_share": ("learner waits for unrolls", "share of time"),
        "actor/waiting_share": ("actors wait for the queue", "share of time"),
        "learner/policy_lag": ("policy lag", "learner steps"),
    },
    asked_for=_MANY,
    bindings=_impala_bindings,
    limits=limits.impala,
)

SEED = Subject(
    name="SEED RL",
    configs=(Seed,),
    parts={
        "a": Part(
            "Inference service, {config.actors} actors of {config.environments_per_actor} "
            "environments, CPU of all processes for an observation",
            seed.service,
        ),
        "b": Part(
            "Streams (b): actors that wait for their environments most of the time", seed.streams
        ),
    },
    whole={
        "steps": ("environment steps", "environment steps/s"),
        "updates": ("learner steps", "learner steps/s"),
        "learner/waiting_share": ("learner waits for unrolls", "share of time"),
        "learner/policy_lag": ("policy lag", "learner steps"),
    },
)

PARAMETER_SERVERS = Subject(
    name="A3C and Gorila",
    configs=(A3c, Gorila),
    parts={
        "a": Part(
            "A worker's cycle, parameter servers: {config.parameter_servers} (a)",
            parameter_servers.cycles,
        ),
        "b": Part("Speed with more workers (b)", parameter_servers.speed_ups),
    },
    whole={
        "steps": ("environment steps", "steps/s"),
        "updates": ("updates", "updates/s"),
        "actor/waiting_share": ("workers' time spent communicating", "ratio"),
    },
)

SUBJECTS = (APEX, IMPALA, SEED, PARAMETER_SERVERS)
