"""Settings that architectures share; each architecture's page has those that are its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import gin

from tfdrl.errors import ConfigurationError, require_at_least_one
from tfdrl.experiment import Experiment
from tfdrl.topology import Role, actor_role, chief_role, evaluator_role, replay_role

#: Within so many minutes a run may be over before its learner publishes.
_SHORT_MINUTES = 1.0


def check_compute_dtype(scope: str, compute_dtype: str) -> None:
    """Raises ConfigurationError if learners cannot calculate in it."""
    if compute_dtype not in ("float32", "bfloat16"):
        raise ConfigurationError(
            f"{scope}.compute_dtype = {compute_dtype!r} must be 'float32' or 'bfloat16'; the range "
            "of float16 is too small for gradients that are not scaled"
        )


@dataclasses.dataclass(frozen=True)
class Settings:
    """Of every architecture.

    Attributes:
      environment: environment factory, such as @gym_environment or @atari_environment.
      agent: agent factory `agent(time_step_spec, action_spec, train_step_counter=)`.
      evaluation_environments: environments that are evaluated together.
      gpu_roles: names of the roles whose processes see the GPUs of their machine, such as
        ("learner", "evaluator"); each takes 0.5 to 0.9 GB of one. () for none; None: the learners.
      jit_compile: whether XLA compiles training, and SEED RL's inference: for GPU and TPU.
    """

    environment: Callable = gin.REQUIRED
    agent: Callable = gin.REQUIRED
    evaluation_environments: int = 100
    gpu_roles: tuple | None = None
    jit_compile: bool = False


@dataclasses.dataclass(frozen=True)
class DistributedSettings(Settings):
    """Of those with several processes.

    Attributes:
      evaluation_period_secs: from the start of one evaluation to the next, at least.
      timeout_secs: how long a role waits for one that does not answer.
    """

    evaluation_period_secs: float = 10.0
    timeout_secs: float = 120.0

    def evaluation(self, experiment: Experiment) -> dict[str, Any]:
        """What the evaluator goes by, as keywords of `evaluation.role.evaluate_until_stopped`."""
        return {
            "environment": self.environment,
            "agent": self.agent,
            "num_envs": self.evaluation_environments,
            "episodes": experiment.evaluation_episodes,
            "policy": experiment.evaluation_policy,
            "seed": experiment.seed,
            "period_secs": self.evaluation_period_secs,
            "timeout_secs": self.timeout_secs,
            "plays_untrained": _may_end_at_once(experiment),
        }


def _may_end_at_once(experiment: Experiment) -> bool:
    """Whether it may be over before anything was learned; it has an evaluation all the same."""
    limits = experiment.max_frames, experiment.max_learner_steps
    minutes = experiment.max_minutes
    return limits != (None, None) or (minutes is not None and minutes < _SHORT_MINUTES)


@dataclasses.dataclass(frozen=True)
class ActorsAndLearner(DistributedSettings):
    """Of those in which many actors feed a learner: Ape-X, R2D2, IMPALA, SEED RL.

    Attributes:
      strategy: `strategy()` -> tf.distribute.Strategy of the learner.
      actors: actor processes.
      environments_per_actor: environments that one actor steps together.
      publish_period_steps: learner steps between two publications of the parameters.
      learner_checkpoint_period_secs, replay_checkpoint_period_secs: between checkpoints; 0 for
        the replay: only at the end.
      max_bad_steps: non-finite losses in a row before the run ends with exit code 3.
      actor_niceness: of actors and evaluator, 0 to 19, where they share cores with the learner.
      learner_threads: TensorFlow threads of a learner; 0: TensorFlow chooses.
      compute_dtype: "bfloat16": the learner's torsos calculate in it (and so does SEED RL's
        inference), for GPU, TPU and processors with its instructions; variables, recurrent layers,
        heads, losses and all other roles stay in float32. Else "float32".
    """

    strategy: Callable | None = None
    actors: int = 4
    environments_per_actor: int = 1
    publish_period_steps: int = 10
    learner_checkpoint_period_secs: float = 300.0
    replay_checkpoint_period_secs: float = 0.0
    max_bad_steps: int = 1
    actor_niceness: int = 0
    learner_threads: int = 0
    compute_dtype: str = "float32"

    def check_counts(self, scope: str, more: str) -> None:
        """Raises ConfigurationError for a number below 1, of those above or named in `more`.

        And for a `compute_dtype` that there is not.
        """
        check_compute_dtype(scope, self.compute_dtype)
        mine = "actors environments_per_actor publish_period_steps max_bad_steps"
        require_at_least_one(self, scope, f"{more} {mine} evaluation_environments")


@dataclasses.dataclass(frozen=True)
class PrioritisedReplay(ActorsAndLearner):
    """Of those that can learn from a prioritised replay: Ape-X, R2D2, SEED RL.

    Attributes:
      table: Reverb table factory `table(signature, name=)`; None for @replay_table.
      exploration: `exploration(count)` -> how much each of all actors' environments explores:
        @epsilon_ladder (the default), or @noise_ladder for agents of continuous actions. It is
        for agents with an `actor_policy`; others explore by their own collect policy.
      replay_ratio: times that each item is trained on, on average: actors and learner that are
        ahead of it wait.
      importance_exponent: beta of the importance weights, constant.
    """

    table: Callable | None = None
    exploration: Callable | None = None
    replay_ratio: float | None = None
    importance_exponent: float = 0.6


@dataclasses.dataclass(frozen=True)
class DistributedReplay(PrioritisedReplay):
    """Of Ape-X and R2D2: a replay between the learner and actors that pull its parameters.

    Attributes:
      replay_ratio: None: nobody waits, as in the papers, and the ratio is what the machine's
        speed makes of it.
      replay_ratio_tolerance_items: items that either may be ahead; None: the table's min_size.
      actor_max_frames_per_second: slows an actor down; None for full speed.
      parameter_pull_period_frames: frames of an actor between two pulls.
      prefetch_batches: calls of TensorFlow for which the learner samples ahead of training:
        exact, with the one that is on its way.
      actor_niceness: where actors share cores with the learner, and no replay_ratio is set, they
        would otherwise starve it.
      actor_threads: TensorFlow threads of an actor; 0: TensorFlow chooses.
    """

    replay_ratio_tolerance_items: int | None = None
    actor_max_frames_per_second: float | None = None
    parameter_pull_period_frames: int = 400
    prefetch_batches: int = 2
    replay_checkpoint_period_secs: float = 600.0
    actor_niceness: int = 5
    actor_threads: int = 1

    def check(self, scope: str, more: str) -> None:
        """Raises ConfigurationError: as `check_counts`, or a ratio that nothing can hold."""
        from tfdrl.replay.replay_ratio import check_settings

        mine = "batch_size prefetch_batches parameter_pull_period_frames"
        self.check_counts(scope, f"{more} {mine}")
        check_settings(self, scope)

    def roles(self, page: str) -> tuple[Role, ...]:
        """The processes and who talks to whom; `page` is the module of their functions."""
        actors = {"threads": self.actor_threads, "niceness": self.actor_niceness}
        return (
            replay_role(page),
            chief_role("learner", page, talks_to=("replay",), threads=self.learner_threads),
            actor_role(page, self.actors, ("replay", "learner"), **actors),
            evaluator_role(page, "learner", self.actor_niceness),
        )


@dataclasses.dataclass(frozen=True)
class ParameterServers(DistributedSettings):
    """Of Gorila and A3C: workers whose gradients meet at parameter servers.

    Attributes:
      parameter_server: @parameter_server(), which has the update rule and its settings.
      parameter_servers: shards; each holds whole variables.
      workers: processes, or threads, that act and compute gradients.
      environments_per_worker: that one worker, or actor, steps together; 1 in the papers.
      slowed_workers, slowdown: the last so many who compute gradients take so many times as long
        for each: stragglers, to study (10 s at the most). 0: none.
      publish_period_secs: between two pulls of the coordinator, for the evaluator.
      coordinator_checkpoint_period_secs: between checkpoints of the policy and the counters.
      worker_threads: TensorFlow threads of a process; 0: TensorFlow chooses.
    """

    parameter_server: Any = gin.REQUIRED
    parameter_servers: int = 1
    workers: int = 4
    environments_per_worker: int = 1
    slowed_workers: int = 0
    slowdown: float = 20.0
    publish_period_secs: float = 1.0
    coordinator_checkpoint_period_secs: float = 60.0
    worker_threads: int = 1

    def check_counts(self, scope: str, more: str) -> None:
        """Raises ConfigurationError for a number below 1, of those above or named in `more`."""
        mine = "workers environments_per_worker parameter_servers slowdown"
        require_at_least_one(self, scope, f"{mine} {more} evaluation_environments")

    def periods(self) -> dict[str, Any]:
        """What the coordinator goes by, as keywords of `parameter_server.coordinator.run`."""
        return {
            "settings": self.parameter_server,
            "publish_period_secs": self.publish_period_secs,
            "checkpoint_period_secs": self.coordinator_checkpoint_period_secs,
            "timeout_secs": self.timeout_secs,
        }
