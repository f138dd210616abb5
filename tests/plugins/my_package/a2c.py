"""A seventh architecture: synchronous advantage actor-critic (A2C), workers and one learner.

    worker 0..W-1 --- one unroll of each environment ---> replay, a queue
        ^                                                    |
        |  the next parameters, that all wait for            v  a batch: the unrolls of all
        +------------------------------------------------ learner ---> evaluator

Every update is of what the newest policy did: no staleness, and no correction for it.
"""

from __future__ import annotations

import dataclasses

import gin

from tfdrl.architectures.settings import DistributedSettings
from tfdrl.errors import require_at_least_one
from tfdrl.experiment import Experiment
from tfdrl.topology import Address, Context, Program, Role, chief_role, evaluator_role, replay_role


@gin.configurable("a2c")
@dataclasses.dataclass(frozen=True)
class A2c(DistributedSettings):
    """Settings of A2C.

    Attributes, with those of `DistributedSettings`:
      agent: one that trains on unrolls, such as @NStepActorCriticAgent.
      workers: processes that act.
      environments_per_worker: stepped together.
      unroll_steps: T, of each environment between two updates.
      threads: TensorFlow threads of a process; 0: TensorFlow chooses.
    """

    workers: int = 2
    environments_per_worker: int = 8
    unroll_steps: int = 5
    evaluation_environments: int = 10
    evaluation_period_secs: float = 2.0
    threads: int = 1

    def __post_init__(self):
        require_at_least_one(self, "a2c", "workers environments_per_worker unroll_steps")

    @property
    def batch_size(self) -> int:
        """Unrolls of one update: one of each environment."""
        return self.workers * self.environments_per_worker

    def program(self) -> Program:
        """The processes and who talks to whom."""
        told = ("replay", "learner")
        return Program(
            "a2c",
            (
                replay_role(__name__),
                chief_role("learner", __name__, talks_to=("replay",), threads=self.threads),
                Role("worker", f"{__name__}:worker", self.workers, told, threads=self.threads),
                evaluator_role(__name__, "learner", niceness=0),
            ),
        )


def replay(experiment: Experiment, context: Context) -> None:
    """Serves the queue, which holds one batch."""
    from tfdrl.replay import unroll_tables
    from tfdrl.replay.role import serve
    from tfdrl.runtime import agent_factory

    config = experiment.architecture
    with config.environment(num_envs=1, training=True, seed=experiment.seed) as environment:
        policy = agent_factory.make_agent(config.agent, environment).collect_policy
        signature = unroll_tables.unroll_signature(environment, policy, config.unroll_steps)
    serve(lambda: unroll_tables.unroll_tables(signature, config.batch_size, 0), context, 0.0)


def learner(experiment: Experiment, context: Context, replay: Address) -> None:
    """Trains once on the unrolls of all workers, publishes, and again."""
    import tensorflow as tf

    from tfdrl.experience.unroll_batches import train_arguments
    from tfdrl.learning.learner_metrics import UnrollMetrics
    from tfdrl.learning.session import LearnerSession
    from tfdrl.learning.trainer import Trainer
    from tfdrl.replay import unroll_tables
    from tfdrl.replay.client import ReplayInfo
    from tfdrl.replay.reading import Samples
    from tfdrl.replay.unroll_dataset import unroll_dataset
    from tfdrl.runtime import agent_factory

    config = experiment.architecture
    with config.environment(num_envs=1, training=True, seed=experiment.seed) as environment:
        agent_factory.set_seed(experiment.seed)
        agent = agent_factory.make_agent(config.agent, environment)
        specs = agent_factory.specs_text(environment)
        signature = unroll_tables.unroll_signature(
            environment, agent.collect_policy, config.unroll_steps
        )
    session = LearnerSession(
        experiment, context, agent, specs, publish_period_steps=1, checkpoint_period_secs=60.0
    )
    trainer = Trainer(agent, tf.distribute.get_strategy(), max_bad_steps=1, says=session.says)
    queue = ReplayInfo(replay, config.timeout_secs, unroll_tables.QUEUE)
    queue.wait(unroll_tables.with_row(signature), "the learner", context.stop)
    dataset = unroll_dataset(replay, signature, config.batch_size)
    samples = Samples(dataset, 1, queue, context.stop)
    metrics = UnrollMetrics(queue.size, samples.waiting, trainer, config.batch_size)
    with session:
        while session.goes_on():
            batch = samples.next()
            if batch is not None:
                step = trainer.train_once(**train_arguments(agent, batch))
                session.count(1)
                metrics.add(*step, batch, session.step)
            session.tick(metrics.take)


def worker(experiment: Experiment, context: Context, replay: Address, learner: Address) -> None:
    """Acts for one unroll, sends it, and waits for the parameters that it leads to."""
    from tfdrl.acting.exploration import unexplored
    from tfdrl.acting.joining import joined
    from tfdrl.acting.loop import ActorLoop
    from tfdrl.experience.unroll_assembler import UnrollAssembler
    from tfdrl.replay import unroll_tables
    from tfdrl.replay.unroll_writer import UnrollWriter

    config = experiment.architecture
    with joined(
        learner,
        context,
        experiment.seed,
        environment=config.environment,
        agent=config.agent,
        num_envs=config.environments_per_worker,
        exploration=unexplored,
        timeout_secs=config.timeout_secs,
    ) as (environment, _, policy, connection):
        queue = (unroll_tables.QUEUE,)
        writer = UnrollWriter(replay, queue, config.timeout_secs, context.stop, connection.check)
        assembler = UnrollAssembler(environment.num_envs, config.unroll_steps)
        loop = ActorLoop(environment, policy, connection, context)
        assembler.begin(loop.state)
        for time_step, action, next_time_step, info in loop.steps():
            unrolls = assembler.add(time_step, action, next_time_step, info, connection.version)
            if unrolls is not None:
                writer.write(unrolls)
                connection.wait_for_newer(period_secs=0.002)
                assembler.begin(loop.state)
            loop.tick(writer.waiting, writer.counters)
        writer.close()


def evaluator(experiment: Experiment, context: Context, learner: Address) -> None:
    """Plays the greedy policy and reports returns."""
    from tfdrl.evaluation.role import evaluate_until_stopped

    values = experiment.architecture.evaluation(experiment)
    evaluate_until_stopped(learner, context, **values)
