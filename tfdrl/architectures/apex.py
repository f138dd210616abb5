"""Ape-X (Horgan et al. 2018): many actors, one learner, one prioritised replay.

        parameters, pulled every 400 frames
      +--------------------------------------+
      v                                      |
    actor 0..N-1   n-step transitions with   |
      |            initial priorities        |
      +-----------------> replay             |
                            |  ^  new        |
             samples, P(i)  |  |  priorities |
                            v  |             |
                           learner ----------+
                              |
                              +--> evaluator

Each actor explores with an epsilon of its own; no role waits for another's step, unless a
`replay_ratio` is set: then whoever is too far ahead of it waits.
"""

from __future__ import annotations

import dataclasses

import gin

from tfdrl.architectures.settings import DistributedReplay
from tfdrl.errors import ConfigurationError
from tfdrl.experiment import Experiment
from tfdrl.topology import Address, Context, Program


@gin.configurable("apex")
@dataclasses.dataclass(frozen=True)
class Apex(DistributedReplay):
    """Settings of Ape-X; the defaults are the paper's for Atari, on fewer actors.

    Attributes, with those of `DistributedReplay`:
      gamma: discount of one step, the same as the agent's.
      n_step: steps of a full window.
      actor_buffer_transitions: transitions an actor collects before it sends them.
      sampler_workers: streams by which the learner reads the replay.
      batch_size: transitions of one learner step.
      updates_per_call: learner steps in one call of TensorFlow; priorities and publication
        wait for all of them.
      prefetch_batches: 16 in the paper.
    """

    gamma: float = 0.99
    n_step: int = 3
    actor_buffer_transitions: int = 50
    sampler_workers: int = 1
    batch_size: int = 512
    updates_per_call: int = 1
    prefetch_batches: int = 16
    importance_exponent: float = 0.4

    def __post_init__(self):
        self.check("apex", "n_step actor_buffer_transitions updates_per_call")
        if not 0.0 <= self.gamma <= 1.0:
            raise ConfigurationError(f"apex.gamma = {self.gamma} must be between 0 and 1")

    @property
    def samples_per_call(self) -> int:
        """Transitions that one call of TensorFlow trains on."""
        return self.batch_size * self.updates_per_call

    def program(self) -> Program:
        """The processes and who talks to whom."""
        return Program("apex", self.roles(__name__)).on_gpus(self.gpu_roles)


def replay(experiment: Experiment, context: Context) -> None:
    """Serves the table and checkpoints it on a period and at the end."""
    from tfdrl.replay import transition_table
    from tfdrl.replay.role import serve_table

    config = experiment.architecture
    with config.environment(num_envs=1, training=True, seed=experiment.seed) as environment:
        signature = transition_table.transition_signature(environment, config.n_step)
    period_secs = config.replay_checkpoint_period_secs
    serve_table(config.table, signature, transition_table.APEX, context, period_secs)


def learner(experiment: Experiment, context: Context, replay: Address) -> None:
    """Trains on prioritised samples, writes priorities back and publishes parameters."""
    from tfdrl.learning import ratio_limiters
    from tfdrl.learning.devices import strategy as default_strategy
    from tfdrl.learning.learner_metrics import LearningMetrics
    from tfdrl.learning.session import LearnerSession
    from tfdrl.learning.trainer import Trainer, check_batch
    from tfdrl.replay import transition_table
    from tfdrl.replay.client import ReplayInfo
    from tfdrl.replay.identity import require_other_process
    from tfdrl.replay.reading import Samples, ready_of
    from tfdrl.replay.transition_dataset import PriorityWriter, require_priorities, sample_dataset
    from tfdrl.runtime import agent_factory
    from tfdrl.runtime.agent_factory import check_gamma

    config = experiment.architecture
    strategy = (config.strategy or default_strategy)()
    check_batch(config.batch_size, strategy)
    with config.environment(num_envs=1, training=True, seed=experiment.seed) as environment:
        signature = transition_table.transition_signature(environment, config.n_step)
        specs, returns = agent_factory.specs_text(environment), environment.return_range
        agent_factory.set_seed(experiment.seed)
        with strategy.scope():
            agent = agent_factory.make_agent(config.agent, environment, config.compute_dtype)
    check_gamma(agent, config.gamma, "apex.gamma")
    session = LearnerSession(
        experiment,
        context,
        agent,
        specs,
        publish_period_steps=config.publish_period_steps,
        checkpoint_period_secs=config.learner_checkpoint_period_secs,
        returns=returns,
    )
    trainer = Trainer(agent, strategy, config.max_bad_steps, config.jit_compile, says=session.says)
    server = ReplayInfo(replay, config.timeout_secs)
    table_info = server.wait(signature, "the learner", context.stop)
    require_other_process(replay, transition_table.TABLE)
    limiter = ratio_limiters.of_session(
        config, "apex", config.samples_per_call, table_info, session, context.stop
    )
    dataset = sample_dataset(
        replay,
        signature,
        config.batch_size,
        config.updates_per_call,
        config.importance_exponent,
        config.prefetch_batches,
        config.sampler_workers,
    )
    require_priorities(table_info, trainer, dataset.element_spec, agent)
    ready = ready_of(config.prefetch_batches)
    samples = Samples(dataset, ready, server, context.stop)
    priorities = PriorityWriter(replay)
    learning = LearningMetrics(server, samples, priorities, trainer)
    with session:
        while session.goes_on():
            batch = samples.next() if limiter.allows_training() else None
            if batch is not None:
                losses, td_errors = trainer.train(batch.experience, batch.weights)
                priorities.update(batch.keys.numpy(), td_errors)
                session.count(config.updates_per_call, config.samples_per_call)
                learning.add(losses, batch, session.step)
            session.tick(lambda: {**learning.take(), **limiter.metrics()})


def actor(experiment: Experiment, context: Context, replay: Address, learner: Address) -> None:
    """Acts with its own epsilon and sends n-step transitions with initial priorities."""
    from tfdrl.acting.exploration import epsilon_ladder
    from tfdrl.acting.joining import joined
    from tfdrl.acting.loop import ActorLoop
    from tfdrl.experience.frame_stacks import with_single_frames
    from tfdrl.experience.transitions import TransitionAssembler
    from tfdrl.learning.ratio_limiters import ActorLimiter
    from tfdrl.replay import replay_ratio, transition_table
    from tfdrl.replay.client import ReplayInfo
    from tfdrl.replay.transition_writer import TransitionWriter

    config, num_envs = experiment.architecture, experiment.architecture.environments_per_actor
    with joined(
        learner,
        context,
        experiment.seed,
        environment=config.environment,
        agent=config.agent,
        num_envs=num_envs,
        exploration=config.exploration or epsilon_ladder,
        timeout_secs=config.timeout_secs,
    ) as (environment, _, policy, connection):
        server = ReplayInfo(replay, config.timeout_secs)
        signature = transition_table.transition_signature(environment, config.n_step)
        table = server.wait(signature, "the actor", context.stop)
        ratio = replay_ratio.of_tables(config, "apex", config.samples_per_call, [table])
        assembler = TransitionAssembler(
            num_envs,
            config.n_step,
            config.gamma,
            block_steps=-(-config.actor_buffer_transitions // num_envs),
        )
        writer = TransitionWriter(
            replay,
            num_envs,
            config.n_step,
            config.timeout_secs,
            context.stop,
            environment.frame_stack,
        )
        loop = ActorLoop(
            environment, policy, connection, context, config.actor_max_frames_per_second
        )
        limiter = ActorLimiter(ratio, connection, server, context)

        def tick():
            loop.tick(writer.waiting, lambda: {**writer.counters(), **limiter.counters()})

        for step in with_single_frames(environment, loop.steps()):
            block = assembler.add(*step, connection.version)
            if block is not None:
                writer.write(block)
                limiter.wait(writer.items, tick)
            if loop.frames_since_pull >= config.parameter_pull_period_frames:
                loop.pull_parameters()
            tick()
        writer.close()


def evaluator(experiment: Experiment, context: Context, learner: Address) -> None:
    """Plays the greedy policy and reports returns."""
    from tfdrl.evaluation.role import evaluate_until_stopped

    values = experiment.architecture.evaluation(experiment)
    evaluate_until_stopped(learner, context, **values)
