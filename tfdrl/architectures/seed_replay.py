"""SEED RL's R2D2 (Espeholt et al. 2019, section 4): the unrolls go through a prioritised replay.

    queue ---> replay (Reverb, prioritised) ---> double Q-learning over sequences
                        ^                                  |
                        +------------ priorities ----------+

The unrolls are R2D2's sequences: they overlap by its burn-in, and have initial priorities by the
values that acting saw. All else is as on seed.py, whose learner calls `train`.
"""

from __future__ import annotations

from tfdrl import contracts
from tfdrl.experiment import Experiment
from tfdrl.topology import Address, Context


def replay(experiment: Experiment, context: Context) -> None:
    """Serves the prioritised replay of sequences."""
    from tfdrl.experience import frame_stacks
    from tfdrl.replay import transition_table, unroll_tables
    from tfdrl.replay.role import serve_table
    from tfdrl.replay.sequence_writer import SEQUENCES
    from tfdrl.runtime import agent_factory

    config = experiment.architecture
    with config.environment(num_envs=1, training=True, seed=experiment.seed) as environment:
        agent = agent_factory.make_agent(config.agent, environment)
        steps = contracts.burn_in_steps(agent) + config.unroll_steps
        signature = unroll_tables.unroll_signature(environment, agent.collect_policy, steps)
        signature = frame_stacks.thin_signature(signature, environment.frame_stack)
    row = unroll_tables.with_row(signature)
    period_secs = config.replay_checkpoint_period_secs
    serve_table(config.table, row, transition_table.R2D2, context, period_secs, SEQUENCES)


def train(
    config,
    context: Context,
    replay: Address,
    signature,
    frame_stack: int,
    agent,
    session,
    trainer,
    queue,
    player,
) -> None:
    """Sequences into the replay and, at the ratio that is set, batches out of it.

    Args:
      config, context, replay: of the learner.
      signature: of the unrolls.
      frame_stack: frames in an observation, of which one is stored; else 1.
      agent, session, trainer, queue, player: what `seed.learner` has made.
    """
    from tfdrl.experience.unroll_batches import train_arguments
    from tfdrl.learning.learner_metrics import UnrollMetrics
    from tfdrl.replay.sequence_dataset import SequenceReplay
    from tfdrl.runtime.metrics import Every

    contracts.require_sequence_agent(agent, "seed")
    sequences = SequenceReplay(
        replay,
        signature,
        agent,
        frame_stack,
        context.stop,
        ratio=config.replay_ratio,
        batch_size=config.batch_size,
        importance_exponent=config.importance_exponent,
        timeout_secs=config.timeout_secs,
    )
    if not sequences.wait():
        return
    warning_is_due = Every(5.0)
    learning = UnrollMetrics(queue.__len__, sequences.waiting, trainer, config.batch_size)
    while session.goes_on():
        if not sequences.allow_a_step:
            with sequences.waiting:
                unrolls = queue.take(config.taken_unrolls, timeout_secs=0.5)
            if unrolls is not None:
                sequences.put(unrolls, queue.next_info)
            elif warning_is_due():
                player.warn_of_waiting()
        elif (batch := sequences.sample()) is not None:
            arguments = train_arguments(agent, batch.unrolls)
            loss, priority, info = trainer.train_sequences(**arguments, weights=batch.weights)
            sequences.update(batch, priority)
            session.count(1)
            learning.add(loss, info, batch.unrolls, session.step)
        session.tick(lambda: {**learning.take(), **player.statistics(), **sequences.metrics()})
    sequences.close()
