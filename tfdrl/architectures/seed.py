"""SEED RL (Espeholt et al. 2019): inference and training in one place, actors without a model.

    actor 0..N-1                              learner
      environments --- observations ---> batched inference <--+
           ^                |                  |              |
           +--- actions ----+--<---------------+              | the same
                (one gRPC stream each)         |              | variables
                                               v              |
                     recurrent states,   unrolls --> queue --> V-trace
                     frame stacks,       (full: that actor waits)
                     on the device
                                                              |
                                      evaluator <-- parameters, now and then

No parameters travel to an actor: it imports no TensorFlow, and an update takes effect at the very
next action. So actions of one unroll come from several versions, and V-trace corrects them by the
behaviour logits recorded when they were chosen.

With seed.replay_ratio the unrolls are R2D2's sequences, and go through a replay: seed_replay.py.
"""

from __future__ import annotations

import dataclasses

import gin

from tfdrl import contracts
from tfdrl.architectures.settings import PrioritisedReplay
from tfdrl.errors import ConfigurationError, TfdrlError
from tfdrl.experiment import Experiment
from tfdrl.topology import (
    Address,
    Context,
    Program,
    actor_role,
    chief_role,
    evaluator_role,
    replay_role,
)


@gin.configurable("seed")
@dataclasses.dataclass(frozen=True)
class Seed(PrioritisedReplay):
    """Settings of SEED RL; the defaults are the release's for V-trace, on fewer actors.

    Attributes, with those of `PrioritisedReplay`:
      unroll_steps: T, agent steps of an unroll that are trained on; it goes on through episode
        ends. An agent with burn_in_steps has as many before them, which unrolls share.
      batch_size: B, unrolls of one learner step.
      replay_ratio: times that each unroll is trained on, on average, from a prioritised replay
        (R2D2: 0.75 to 1.5); learning and acting wait for each other to hold it. None: no replay,
        each unroll is trained on once (V-trace).
      sequences_within_episodes: with a replay, unrolls that cross no end of an episode, as R2D2's
        paper has them; the release's do. See `r2d2`.
      queue_capacity_unrolls: complete unrolls that wait for the learner; when there are as many,
        an actor that completes one more waits. None: one batch.
      inference_batch_size: environments with which a batch leaves as soon as a device is free; 1
        gives the shortest wait, and with many actors the batches grow by themselves. None: a share
        of those whose actors are neither slow nor waiting for room in the queue.
      inference_batch_share: this share; 0.5: two groups take turns, one stepping, one in a batch;
        1.0: the largest batches, where actors and learner share cores anyway.
      inference_max_batch_size: environments in one batch at most; None: all.
      inference_time_limit_ms: how long the first block of a batch waits for others.
      inference_devices: such as ("GPU:0",) or ("TPU:0", "TPU:1"), in turn; ("",) takes
        TensorFlow's choice. Those that `strategy` does not train on leave it alone. The first
        keeps the state of all environments.
      environment_rebuilds: how often an actor replaces environments that raise, hang or reward
        with NaN before it gives up; 1,000 good steps, and it counts anew.
      environment_step_timeout_secs: of one step of an actor's environments.
    """

    unroll_steps: int = 20
    sequences_within_episodes: bool = False
    batch_size: int = 32
    environments_per_actor: int = 8
    queue_capacity_unrolls: int | None = None
    inference_batch_size: int | None = None
    inference_batch_share: float = 0.5
    inference_max_batch_size: int | None = None
    inference_time_limit_ms: float = 10.0
    inference_devices: tuple = ("",)
    publish_period_steps: int = 20
    environment_rebuilds: int = 3
    environment_step_timeout_secs: float = 60.0

    def __post_init__(self):
        self.check_counts("seed", "unroll_steps batch_size")
        capacity = self.queue_capacity_unrolls
        if capacity is not None and capacity < self.taken_unrolls:
            raise ConfigurationError(
                f"seed.queue_capacity_unrolls = {capacity} can never hold the "
                f"{self.taken_unrolls} unrolls that are taken at once: the learner and the actors "
                "would wait for each other; raise it or leave it at None"
            )
        if self.replay_ratio is not None and not self.replay_ratio > 0:
            raise ConfigurationError(
                f"seed.replay_ratio = {self.replay_ratio} must be positive, or None for no replay"
            )
        if self.sequences_within_episodes and self.replay_ratio is None:
            raise ConfigurationError(
                "seed.sequences_within_episodes needs a replay: set seed.replay_ratio (R2D2)"
            )
        if self.max_rows < self.environments_per_actor:
            raise ConfigurationError(
                f"seed.inference_max_batch_size = {self.inference_max_batch_size} is below "
                f"environments_per_actor = {self.environments_per_actor}: an actor's message would "
                "fit into no batch"
            )
        if not self.inference_time_limit_ms > 0:
            raise ConfigurationError(
                f"seed.inference_time_limit_ms = {self.inference_time_limit_ms} must be positive"
            )
        if self.environment_rebuilds < 0 or not self.environment_step_timeout_secs > 0:
            raise ConfigurationError(
                f"seed.environment_rebuilds = {self.environment_rebuilds} must be 0 or more, "
                f"environment_step_timeout_secs = {self.environment_step_timeout_secs} positive"
            )
        if not 0 < self.inference_batch_share <= 1:
            raise ConfigurationError(
                f"seed.inference_batch_share = {self.inference_batch_share} must be above 0 and "
                "at most 1"
            )
        if not self.inference_devices:
            raise ConfigurationError('seed.inference_devices is empty; ("",) is the default')

    @property
    def environments(self) -> int:
        """Over all actors."""
        return self.actors * self.environments_per_actor

    @property
    def max_rows(self) -> int:
        """The most environments in one inference batch."""
        return self.inference_max_batch_size or self.environments

    def rows_wanted(self, awaited: int) -> int:
        """The environments with which an inference batch leaves at once, of those awaited."""
        return self.inference_batch_size or max(round(self.inference_batch_share * awaited), 1)

    @property
    def taken_unrolls(self) -> int:
        """That the learner takes from its queue at once: a batch, or an actor's for the replay."""
        return self.batch_size if self.replay_ratio is None else self.environments_per_actor

    def program(self) -> Program:
        """The processes and who talks to whom."""
        replays = () if self.replay_ratio is None else (replay_role(f"{__name__}_replay"),)
        told = tuple(role.name for role in replays)
        light = {"needs_tensorflow": False, "niceness": self.actor_niceness}
        return Program(
            "seed",
            (
                *replays,
                chief_role("learner", __name__, talks_to=told, threads=self.learner_threads),
                actor_role(__name__, self.actors, ("learner",), **light),
                evaluator_role(__name__, "learner", self.actor_niceness),
            ),
        ).on_gpus(self.gpu_roles)


def learner(experiment: Experiment, context: Context, replay: Address | None = None) -> None:
    """Acts for all environments and trains on what they show, with the same variables."""
    from tfdrl.acting import exploration as acting_exploration
    from tfdrl.architectures import seed_replay
    from tfdrl.experience.unroll_queue import UnrollQueue
    from tfdrl.inference.awaited import AwaitedEnvironments
    from tfdrl.inference.environments import CentralInference
    from tfdrl.inference.policy import BatchedPolicy
    from tfdrl.learning.devices import check_devices, make_logical_cpus, make_strategy
    from tfdrl.learning.session import LearnerSession
    from tfdrl.learning.trainer import Trainer, check_batch
    from tfdrl.replay import unroll_tables
    from tfdrl.rpc import environment_specs
    from tfdrl.rpc.inference_server import InferenceService
    from tfdrl.runtime import agent_factory

    config = experiment.architecture
    make_logical_cpus(config.inference_devices)
    strategy = make_strategy(config.strategy, context, config.timeout_secs)
    check_devices("seed.inference_devices", config.inference_devices)
    check_batch(config.batch_size, strategy)
    with config.environment(num_envs=1, training=True, seed=experiment.seed) as environment:
        specs_text, returns = agent_factory.specs_text(environment), environment.return_range
        specs = environment_specs.environment_specs(environment)
        agent_factory.set_seed(experiment.seed)
        with strategy.scope():
            agent = agent_factory.make_agent(config.agent, environment, config.compute_dtype)
        overlap = contracts.burn_in_steps(agent)
        signature = unroll_tables.unroll_signature(
            environment, agent.collect_policy, overlap + config.unroll_steps
        )
    queue = UnrollQueue(config.queue_capacity_unrolls or config.taken_unrolls)
    awaited = AwaitedEnvironments()
    inference = BatchedPolicy(
        agent.collect_policy,
        specs,
        environments=config.environments,
        rows_wanted=lambda: config.rows_wanted(awaited.count()),
        rows_present=awaited.count,
        max_rows=config.max_rows,
        time_limit_secs=config.inference_time_limit_ms / 1000,
        devices=config.inference_devices,
        jit_compile=config.jit_compile,
        epsilon=(config.exploration or acting_exploration.epsilon_ladder)(config.environments),
    )
    player = CentralInference(
        inference,
        specs,
        environments=config.environments,
        max_block=config.max_rows,
        unroll_steps=overlap + config.unroll_steps,
        overlap=overlap,
        within_episodes=config.sequences_within_episodes,
        awaited=awaited,
        put=queue.put,
    )
    session = LearnerSession(
        experiment,
        context,
        agent,
        specs_text,
        publish_period_steps=config.publish_period_steps,
        checkpoint_period_secs=config.learner_checkpoint_period_secs,
        returns=returns,
        more=InferenceService(player, context.experiment, specs).served_for(config.environments),
    )
    trainer = Trainer(agent, strategy, config.max_bad_steps, config.jit_compile, says=session.says)
    with session:
        player.open(session.service.record, lambda: session.step)
        try:
            if replay is None:
                _train_on_the_queue(config.batch_size, session, trainer, queue, player)
            else:
                seed_replay.train(
                    config,
                    context,
                    replay,
                    signature,
                    specs.frame_stack,
                    agent,
                    session,
                    trainer,
                    queue,
                    player,
                )
        except TfdrlError as error:
            session.fail(error)
            raise
        finally:
            player.close(session.reason)
            queue.close()


def _train_on_the_queue(batch_size, session, trainer, queue, player):
    """Every unroll once, in the order of their completion."""
    from tfdrl.experience.prefetched_batches import PrefetchedBatches
    from tfdrl.learning.learner_metrics import UnrollMetrics
    from tfdrl.runtime.metrics import Every, WaitingClock

    waiting, warning_is_due = WaitingClock(), Every(5.0)
    batches = PrefetchedBatches(queue, batch_size)
    learning = UnrollMetrics(queue.__len__, waiting, trainer, batch_size)
    while session.goes_on():
        with waiting:
            unrolls = batches.take(timeout_secs=0.5)
        if unrolls is not None:
            step = trainer.train_unrolls(unrolls)
            session.count(1)
            learning.add(*step, unrolls, session.step)
        elif warning_is_due():
            player.warn_of_waiting()
        session.tick(lambda: {**learning.take(), **player.statistics()})


def actor(experiment: Experiment, context: Context, learner: Address) -> None:
    """Steps environments by the learner's actions. This process never loads TensorFlow."""
    from tfdrl.inference.remote_actor import act_remotely

    config = experiment.architecture
    act_remotely(
        learner,
        context,
        experiment.seed,
        environment=config.environment,
        num_envs=config.environments_per_actor,
        rebuilds=config.environment_rebuilds,
        step_timeout_secs=config.environment_step_timeout_secs,
        timeout_secs=config.timeout_secs,
    )


def evaluator(experiment: Experiment, context: Context, learner: Address) -> None:
    """Plays the greedy policy and reports returns."""
    from tfdrl.evaluation.role import evaluate_until_stopped

    values = experiment.architecture.evaluation(experiment)
    evaluate_until_stopped(learner, context, **values)
