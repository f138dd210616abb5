"""IMPALA (Espeholt et al. 2018): actors with copies of the policy, a queue of unrolls, V-trace.

      parameters, pulled before each unroll
      +-------------------------------------------+
      v                                           |
    actor 0..N-1   unrolls: observations,         |
      |            actions, behaviour logits,     |
      |            initial state                  |
      +---------> queue (FIFO, full: wait) --> learner ---> evaluator
                    |                             ^
                    +--> replay (uniform) --------+
                         if replay_share > 0

Several learners each have a queue of their own and take every step together: an actor writes to
one queue and pulls from the learner behind it.
"""

from __future__ import annotations

import dataclasses

import gin

from tfdrl.architectures.settings import ActorsAndLearner
from tfdrl.errors import ConfigurationError
from tfdrl.experiment import Experiment
from tfdrl.topology import (
    Addresses,
    Context,
    Program,
    actor_role,
    chief_role,
    evaluator_role,
    one_of,
    replay_role,
)


@gin.configurable("impala")
@dataclasses.dataclass(frozen=True)
class Impala(ActorsAndLearner):
    """Settings of IMPALA; the defaults are the paper's for Atari, on fewer actors.

    Attributes, with those of `ActorsAndLearner`:
      unroll_steps: T, agent steps of an unroll; it goes on through episode ends.
      batch_size: B, unrolls of one learner step, of each learner.
      learners: synchronous learner processes, each with a queue of its own.
      queue_capacity_unrolls: of one queue, with what Reverb has in flight from it to the learner;
        a full one makes its actors wait, which bounds the policy lag. None: the fresh unrolls of
        one batch.
      replay_share: part of each batch that is drawn from the replay (section 5.2.2: 0.5).
      replay_capacity_unrolls: of one replay; the oldest unrolls make room.
      policy_lag_steps: publishes the parameters of so many learner steps ago: an artificial
        lag, to compare corrections by. 0 for none.
      actor_max_frames_per_second: slows an actor down; None for full speed.
      actor_threads: TensorFlow threads of an actor; 0: TensorFlow chooses.
    """

    unroll_steps: int = 20
    batch_size: int = 32
    learners: int = 1
    queue_capacity_unrolls: int | None = None
    replay_share: float = 0.0
    replay_capacity_unrolls: int = 10_000
    policy_lag_steps: int = 0
    publish_period_steps: int = 1
    actor_max_frames_per_second: float | None = None
    actor_threads: int = 1

    def __post_init__(self):
        self.check_counts("impala", "unroll_steps batch_size learners replay_capacity_unrolls")
        if self.policy_lag_steps < 0:
            raise ConfigurationError(
                f"impala.policy_lag_steps = {self.policy_lag_steps} must be 0 or more"
            )
        self._check_that_batches_can_be_filled()

    def _check_that_batches_can_be_filled(self):
        if not 0.0 <= self.replay_share < 1.0:
            raise ConfigurationError(
                f"impala.replay_share = {self.replay_share} must be at least 0 and below 1: a "
                "batch without fresh unrolls would leave the queue full, and the actors would "
                "wait for ever"
            )
        if not self.fresh_unrolls:
            raise ConfigurationError(
                f"impala.replay_share = {self.replay_share} of a batch of {self.batch_size} leaves "
                "no fresh unroll: the queue would stay full, and the actors would wait for ever; "
                "use a larger batch_size or a smaller replay_share"
            )
        capacity = self.queue_capacity_unrolls
        if capacity is not None and capacity < self.fresh_unrolls:
            raise ConfigurationError(
                f"impala.queue_capacity_unrolls = {capacity} can never hold the "
                f"{self.fresh_unrolls} fresh unrolls of a batch: the learner and the actors would "
                "wait for each other; raise it or leave it at None"
            )
        if self.actors < self.learners:
            raise ConfigurationError(
                f"impala.actors = {self.actors} with impala.learners = {self.learners}: a learner "
                "without an actor would never get a batch, and all learners wait for each other; "
                "use at least one actor for each learner"
            )

    @property
    def fresh_unrolls(self) -> int:
        """Unrolls of a batch that come from the queue; the rest is replayed."""
        return self.batch_size - round(self.batch_size * self.replay_share)

    def program(self) -> Program:
        """The processes and who talks to whom."""
        learners = {"replicas": self.learners, "threads": self.learner_threads, "clusters": True}
        actors = {"threads": self.actor_threads, "niceness": self.actor_niceness}
        return Program(
            "impala",
            (
                replay_role(__name__, replicas=self.learners),
                chief_role("learner", __name__, talks_to=("replay",), **learners),
                actor_role(__name__, self.actors, ("replay", "learner"), **actors),
                evaluator_role(__name__, "learner", self.actor_niceness),
            ),
        ).on_gpus(self.gpu_roles)


def replay(experiment: Experiment, context: Context) -> None:
    """Serves the queue of unrolls and, if batches are mixed, the replay."""
    from tfdrl.replay import unroll_tables
    from tfdrl.replay.role import serve
    from tfdrl.runtime import agent_factory

    config = experiment.architecture
    with config.environment(num_envs=1, training=True, seed=experiment.seed) as environment:
        policy = agent_factory.make_agent(config.agent, environment).collect_policy
        signature = unroll_tables.stored_signature(environment, policy, config.unroll_steps)
    fresh = config.fresh_unrolls
    capacity = unroll_tables.queue_table_capacity(config.queue_capacity_unrolls or fresh, fresh)
    replay_capacity = config.replay_capacity_unrolls if config.replay_share else 0
    serve(
        lambda: unroll_tables.unroll_tables(signature, capacity, replay_capacity),
        context,
        config.replay_checkpoint_period_secs,
    )


def learner(experiment: Experiment, context: Context, replay: Addresses) -> None:
    """Trains on batches of unrolls and publishes parameters after every step."""
    from tfdrl.experience.unroll_batches import train_arguments
    from tfdrl.learning.learner_metrics import UnrollMetrics
    from tfdrl.learning.synchronous_learners import LearnerGroup
    from tfdrl.learning.trainer import Trainer
    from tfdrl.replay import unroll_tables
    from tfdrl.replay.client import ReplayInfo
    from tfdrl.replay.identity import require_other_process
    from tfdrl.replay.reading import Samples
    from tfdrl.replay.unroll_dataset import unroll_dataset
    from tfdrl.runtime import agent_factory

    config, queue = experiment.architecture, one_of(replay, context.task)
    strategy = _strategy(config, context)
    group = LearnerGroup(strategy, context, config.timeout_secs)
    with config.environment(num_envs=1, training=True, seed=experiment.seed) as environment:
        specs, returns = agent_factory.specs_text(environment), environment.return_range
        agent_factory.set_seed(experiment.seed)
        with group.together(), strategy.scope():
            agent = agent_factory.make_agent(config.agent, environment, config.compute_dtype)
        signature = unroll_tables.stored_signature(
            environment, agent.collect_policy, config.unroll_steps
        )
    session = _session(experiment, context, agent, specs, group, returns)
    trainer = Trainer(agent, strategy, config.max_bad_steps, config.jit_compile, says=session.says)
    info = ReplayInfo(queue, config.timeout_secs, unroll_tables.QUEUE)
    info.wait(unroll_tables.with_row(signature), "the learner", context.stop)
    require_other_process(queue, unroll_tables.QUEUE)
    replayed = config.batch_size - config.fresh_unrolls
    dataset = unroll_dataset(queue, signature, config.batch_size, replayed)
    # One batch is made while the one before is trained on, and waits; the next stays in the queue.
    samples = Samples(dataset, 1, info, context.stop)
    learning = UnrollMetrics(info.size, samples.waiting, trainer, config.fresh_unrolls)
    batch = None
    with session:
        while True:
            batch = samples.next() if batch is None else batch
            all_are_ready, stops = group.agree(batch is not None, not session.goes_on())
            if stops:
                session.end("one of the learners was told to stop")
                break
            if all_are_ready:
                with group.together():
                    step = trainer.train_once(**train_arguments(agent, batch))
                session.count(1)
                learning.add(*step, batch, session.step)
                batch = None
            session.tick(learning.take)


def _strategy(config: Impala, context: Context):
    from tfdrl.learning.devices import make_strategy
    from tfdrl.learning.trainer import check_batch

    found = make_strategy(config.strategy, context, config.timeout_secs)
    check_batch(config.batch_size, found)
    return found


def _session(experiment, context, agent, specs, group, returns):
    """The chief's session, or that of another learner; all agents are then alike."""
    from tfdrl.learning.follower import FollowerSession
    from tfdrl.learning.session import LearnerSession

    config = experiment.architecture
    if group.is_chief:
        session = LearnerSession(
            experiment,
            context,
            agent,
            specs,
            publish_period_steps=config.publish_period_steps,
            checkpoint_period_secs=config.learner_checkpoint_period_secs,
            lag_steps=config.policy_lag_steps,
            returns=returns,
        )
        group.adopt(agent)
        return session
    group.adopt(agent)
    return FollowerSession(
        experiment, context, agent, specs, config.publish_period_steps, config.policy_lag_steps
    )


def actor(experiment: Experiment, context: Context, replay: Addresses, learner: Addresses) -> None:
    """Pulls parameters, acts for one unroll, puts it into the queue, and again."""
    from tfdrl.acting.exploration import unexplored
    from tfdrl.acting.joining import joined
    from tfdrl.acting.loop import ActorLoop
    from tfdrl.experience.frame_stacks import with_single_frames
    from tfdrl.experience.unroll_assembler import UnrollAssembler
    from tfdrl.replay import unroll_tables
    from tfdrl.replay.client import ReplayInfo
    from tfdrl.replay.unroll_writer import UnrollWriter

    config, num_envs = experiment.architecture, experiment.architecture.environments_per_actor
    queue = one_of(replay, context.task)
    with joined(
        one_of(learner, 0),
        context,
        experiment.seed,
        environment=config.environment,
        agent=config.agent,
        num_envs=num_envs,
        exploration=unexplored,
        timeout_secs=config.timeout_secs,
        parameters_from=one_of(learner, context.task),
    ) as (environment, _, policy, connection):
        signature = unroll_tables.stored_signature(environment, policy, config.unroll_steps)
        tables = [unroll_tables.QUEUE] + [unroll_tables.REPLAY] * (config.replay_share > 0)
        for table in tables:
            info = ReplayInfo(queue, config.timeout_secs, table)
            info.wait(unroll_tables.with_row(signature), "the actor", context.stop)
        writer = UnrollWriter(queue, tables, config.timeout_secs, context.stop, connection.check)
        assembler = UnrollAssembler(
            num_envs, config.unroll_steps, frame_stack=environment.frame_stack
        )
        loop = ActorLoop(
            environment, policy, connection, context, config.actor_max_frames_per_second
        )
        assembler.begin(loop.state)

        def counters():
            return {**writer.counters(), "actor/pulling_share": connection.pulling.take_share()}

        for step in with_single_frames(environment, loop.steps()):
            unrolls = assembler.add(*step, connection.version)
            if unrolls is not None:
                writer.write(unrolls)
                connection.pull()
                assembler.begin(loop.state)
            loop.tick(writer.waiting, counters)
        writer.close()


def evaluator(experiment: Experiment, context: Context, learner: Addresses) -> None:
    """Plays the greedy policy and reports returns."""
    from tfdrl.evaluation.role import evaluate_until_stopped

    values = experiment.architecture.evaluation(experiment)
    evaluate_until_stopped(one_of(learner, 0), context, **values)
