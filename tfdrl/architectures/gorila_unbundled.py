"""Gorila's roles where actors, learners and replay are counted apart (Nair et al. 2015, section 4).

    actor 0..N-1 --- transitions ---> replay 0..R-1 --- samples ---> learner 0..L-1
         ^                                                            |  ^
         | parameters                                       gradients |  | parameters
         +------------------- parameter server 0..S-1 <---------------+--+

An actor writes to one part of the global replay; a learner samples from all in turn.
"""

from __future__ import annotations

from tfdrl.experiment import Experiment
from tfdrl.topology import Address, Addresses, Context, one_of


def replay(experiment: Experiment, context: Context) -> None:
    """Serves one part of the global replay; checkpoints it on a period and at the end."""
    from tfdrl.replay import transition_table
    from tfdrl.replay.role import serve_table

    config = experiment.architecture
    with config.environment(num_envs=1, training=True, seed=experiment.seed) as environment:
        signature = transition_table.transition_signature(environment, config.n_step)
    period_secs = config.replay_checkpoint_period_secs
    serve_table(config.table, signature, transition_table.GORILA, context, period_secs)


def learner(
    experiment: Experiment,
    context: Context,
    replay: Addresses,
    parameter_server: Addresses,
    coordinator: Address,
) -> None:
    """Samples from all parts of the replay in turn and sends gradients."""
    from tfdrl.acting.artificial_stragglers import Straggling
    from tfdrl.learning import ratio_limiters
    from tfdrl.parameter_server.joining import connected
    from tfdrl.parameter_server.reports import LearnerReports
    from tfdrl.parameter_server.target_network import TargetNetwork
    from tfdrl.parameter_server.transition_learning import GradientLearner, trajectory_gradient
    from tfdrl.replay.several_servers import SharedSamples
    from tfdrl.runtime import agent_factory

    config = experiment.architecture
    with config.environment(num_envs=1, training=True, seed=experiment.seed) as environment:
        agent = agent_factory.make_agent(config.agent, environment)
        sizes = config.batch_size, config.n_step
        gradient = trajectory_gradient(agent, environment, *sizes, config.jit_compile)
        specs = agent_factory.specs_text(environment)
        samples = SharedSamples(
            replay,
            environment,
            config.n_step,
            context,
            config.batch_size,
            config.prefetch_batches,
            config.timeout_secs,
        )
    agent_factory.check_gamma(agent, config.gamma, "gorila.gamma")
    settings, timeout_secs = config.parameter_server, config.timeout_secs
    with connected(
        parameter_server, coordinator, context, gradient, specs, settings, timeout_secs
    ) as (parameters, connection):
        target = TargetNetwork(agent, config.target_period_updates)
        learner = GradientLearner(gradient, parameters, target, config.outlier_filter())
        straggling = Straggling(config.slowed_workers, config.slowdown, context)
        limiter = ratio_limiters.of_connection(
            config, "gorila", samples.tables, connection, context
        )
        reports = LearnerReports(connection, parameters, samples, limiter, context)
        while not context.stop.is_set():
            connection.check()
            batch = samples.next() if limiter.allows_training() else None
            if batch is not None:
                straggling.wait()
                learner.learn(batch.experience)
                limiter.counts.add(config.batch_size)
            reports.tick(batch)


def actor(
    experiment: Experiment,
    context: Context,
    replay: Addresses,
    parameter_server: Addresses,
    coordinator: Address,
) -> None:
    """Acts by the newest parameters it pulled and sends transitions to one part of the replay."""
    from tfdrl.acting.exploration import AnnealedEpsilon
    from tfdrl.acting.loop import ActorLoop
    from tfdrl.architectures.gorila import joined_worker
    from tfdrl.experience.frame_stacks import with_single_frames
    from tfdrl.experience.transitions import TransitionAssembler
    from tfdrl.learning.ratio_limiters import ActorLimiter
    from tfdrl.replay import replay_ratio, transition_table
    from tfdrl.replay.client import ReplayInfo
    from tfdrl.replay.transition_writer import TransitionWriter

    config, server = experiment.architecture, one_of(replay, context.task)
    n_step, timeout_secs = config.n_step, config.timeout_secs
    seed = experiment.seed + 1009 * (context.task + 1)
    with joined_worker(config, context, seed, parameter_server, coordinator) as joined:
        environment, _, policy, _, parameters, connection = joined
        num_envs = environment.num_envs
        info = ReplayInfo(server, timeout_secs)
        signature = transition_table.transition_signature(environment, n_step)
        tables = [info.wait(signature, "the actor", context.stop)] * config.replays
        ratio = replay_ratio.of_tables(config, "gorila", config.batch_size, tables)
        block_steps = -(-config.actor_buffer_transitions // num_envs)
        assembler = TransitionAssembler(num_envs, n_step, config.gamma, block_steps)
        writer = TransitionWriter(
            server, num_envs, n_step, timeout_secs, context.stop, environment.frame_stack
        )
        epsilon = AnnealedEpsilon(
            policy,
            num_envs,
            config.epsilon_start,
            config.epsilon_end,
            config.epsilon_decay_updates,
        )
        loop = ActorLoop(
            environment, policy, connection, context, config.actor_max_frames_per_second
        )
        limiter = ActorLimiter(ratio, connection, info, context, config.replays)

        def counters():
            return {**writer.counters(), **parameters.versions(), **limiter.counters()}

        def tick():
            loop.tick(writer.waiting, counters)

        epsilon.update(parameters.version)
        for step in with_single_frames(environment, loop.steps()):
            block = assembler.add(*step, parameters.version)
            if block is not None:
                writer.write(block)
                limiter.wait(writer.items, tick)
            if loop.frames_since_pull >= config.parameter_pull_period_frames:
                loop.frames_since_pull = 0
                parameters.pull()
                epsilon.update(parameters.version)
            tick()
        writer.close()
