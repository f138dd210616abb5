"""R2D2 (Kapturowski et al. 2019): Ape-X over sequences, with recurrent networks.

        parameters, pulled every 400 steps
      +--------------------------------------+
      v                                      |
    actor 0..N-1   sequences that overlap,   |
      |            with the state before     |
      |            them and priorities       |
      +-----------------> replay             |
                            |  ^  new        |
        sequences, weights  |  |  priorities |
                            v  |             |
                           learner ----------+
                              |
                              +--> evaluator

The agent, the sequences and their priorities are those of SEED RL's R2D2; what differs is where
inference happens: here in the actors, each with a copy of the network.
"""

from __future__ import annotations

import dataclasses

import gin

from tfdrl import contracts
from tfdrl.architectures.settings import DistributedReplay
from tfdrl.experiment import Experiment
from tfdrl.topology import Address, Context, Program


@gin.configurable("r2d2")
@dataclasses.dataclass(frozen=True)
class R2d2(DistributedReplay):
    """Settings of R2D2; the defaults are the paper's for Atari, on fewer actors.

    Attributes, with those of `DistributedReplay`:
      agent: one that trains on sequences and gives their priorities, such as @R2D2Agent.
      sequence_steps: T, steps of a sequence that are trained on; the agent's burn_in_steps come
        before them and are shared with the sequence before. 80 in the paper, sharing half.
      sequences_within_episodes: whether no sequence crosses the end of an episode, as in the paper
        (section 2.3): the last of an episode then overlaps the one before it by more, and one of a
        short episode is padded. Else they go on through episode ends, as SEED RL's do. The replay
        is the same, so a run may go on with the other.
      batch_size: sequences of one learner step.
      replay_ratio: 0.75 to 1.5 in the release of SEED RL.
      parameter_pull_period_frames: the paper's 400 steps are 1,600 frames of Atari.
    """

    sequence_steps: int = 80
    sequences_within_episodes: bool = True
    batch_size: int = 64
    parameter_pull_period_frames: int = 1600

    def __post_init__(self):
        self.check("r2d2", "sequence_steps")

    def program(self) -> Program:
        """The processes and who talks to whom."""
        return Program("r2d2", self.roles(__name__)).on_gpus(self.gpu_roles)


def replay(experiment: Experiment, context: Context) -> None:
    """Serves the prioritised replay of sequences; checkpoints it on a period and at the end."""
    from tfdrl.experience import frame_stacks
    from tfdrl.replay import transition_table, unroll_tables
    from tfdrl.replay.role import serve_table
    from tfdrl.replay.sequence_writer import SEQUENCES
    from tfdrl.runtime import agent_factory

    config = experiment.architecture
    with config.environment(num_envs=1, training=True, seed=experiment.seed) as environment:
        agent = agent_factory.make_agent(config.agent, environment)
        signature = _signature(environment, agent, config)
        signature = frame_stacks.thin_signature(signature, environment.frame_stack)
    row = unroll_tables.with_row(signature)
    period_secs = config.replay_checkpoint_period_secs
    serve_table(config.table, row, transition_table.R2D2, context, period_secs, SEQUENCES)


def learner(experiment: Experiment, context: Context, replay: Address) -> None:
    """Trains on prioritised sequences, writes priorities back and publishes parameters."""
    from tfdrl.experience.unroll_batches import train_arguments
    from tfdrl.learning import ratio_limiters
    from tfdrl.learning.devices import strategy as default_strategy
    from tfdrl.learning.learner_metrics import UnrollMetrics
    from tfdrl.learning.session import LearnerSession
    from tfdrl.learning.trainer import Trainer, check_batch
    from tfdrl.replay.sequence_dataset import SequenceSamples
    from tfdrl.runtime import agent_factory

    config = experiment.architecture
    strategy = (config.strategy or default_strategy)()
    check_batch(config.batch_size, strategy)
    with config.environment(num_envs=1, training=True, seed=experiment.seed) as environment:
        specs, returns = agent_factory.specs_text(environment), environment.return_range
        frame_stack = environment.frame_stack
        agent_factory.set_seed(experiment.seed)
        with strategy.scope():
            agent = agent_factory.make_agent(config.agent, environment, config.compute_dtype)
        signature = _signature(environment, agent, config)
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
    sequences = SequenceSamples(
        replay,
        signature,
        frame_stack,
        context.stop,
        batch_size=config.batch_size,
        importance_exponent=config.importance_exponent,
        timeout_secs=config.timeout_secs,
        prefetch_batches=config.prefetch_batches,
    )
    with session:
        table = sequences.wait()
        if table is None:
            return
        limiter = ratio_limiters.of_session(
            config, "r2d2", config.batch_size, table, session, context.stop
        )
        learning = UnrollMetrics(sequences.size, sequences.waiting, trainer, config.batch_size)
        while session.goes_on():
            batch = sequences.next() if limiter.allows_training() else None
            if batch is not None:
                arguments = train_arguments(agent, batch.unrolls)
                loss, priority, info = trainer.train_sequences(**arguments, weights=batch.weights)
                sequences.update(batch, priority)
                session.count(1, config.batch_size)
                learning.add(loss, info, batch.unrolls, session.step)
            session.tick(lambda: {**learning.take(), **sequences.metrics(), **limiter.metrics()})


def actor(experiment: Experiment, context: Context, replay: Address, learner: Address) -> None:
    """Acts with its own epsilon and sends sequences with initial priorities."""
    from tfdrl.acting.exploration import epsilon_ladder
    from tfdrl.acting.joining import joined
    from tfdrl.acting.loop import ActorLoop
    from tfdrl.experience import frame_stacks
    from tfdrl.learning.ratio_limiters import ActorLimiter
    from tfdrl.replay import replay_ratio
    from tfdrl.replay.client import ReplayInfo
    from tfdrl.replay.sequence_writer import SEQUENCES, SequenceAssembler, SequenceWriter
    from tfdrl.replay.unroll_tables import with_row

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
    ) as (environment, agent, policy, connection):
        signature = _signature(environment, agent, config)
        signature = with_row(frame_stacks.thin_signature(signature, environment.frame_stack))
        server = ReplayInfo(replay, config.timeout_secs, SEQUENCES)
        table = server.wait(signature, "the actor", context.stop)
        ratio = replay_ratio.of_tables(config, "r2d2", config.batch_size, [table])
        writer = SequenceWriter(
            replay, agent, environment.frame_stack, config.timeout_secs, context.stop
        )
        steps, burn_in = config.sequence_steps, agent.burn_in_steps
        assembler = SequenceAssembler(
            *(num_envs, burn_in + steps, burn_in),
            within_episodes=config.sequences_within_episodes,
            frame_stack=environment.frame_stack,
        )
        loop = ActorLoop(
            environment, policy, connection, context, config.actor_max_frames_per_second
        )
        limiter = ActorLimiter(ratio, connection, server, context)

        def tick():
            loop.tick(writer.waiting, lambda: {**writer.counters(), **limiter.counters()})

        before = loop.state
        for step in frame_stacks.with_single_frames(environment, loop.steps()):
            found = assembler.add(*step, (before, loop.state), connection.version)
            before = loop.state
            if found is not None:
                writer.write(*found)
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


def _signature(environment, agent, config):
    """Of the sequences, with a frame of each stack as often as the policy sees it.

    Raises:
      ConfigurationError: the agent does not train on sequences with priorities.
    """
    from tfdrl.replay import unroll_tables

    contracts.require_sequence_agent(agent, "r2d2")
    steps = agent.burn_in_steps + config.sequence_steps
    return unroll_tables.unroll_signature(environment, agent.collect_policy, steps)
