"""The parts of Ape-X: stepping (a), insertion (b), sampling (c) and training (d); priorities."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import reverb
import tensorflow as tf
import tree
from tf_agents.trajectories import time_step

from tfdrl.acting import exploration
from tfdrl.acting.loop import ActorLoop
from tfdrl.benchmarks import actor_parts, learner_parts
from tfdrl.benchmarks.actor_parts import TIMEOUT_SECS, UNCONFIRMED_ITEMS
from tfdrl.benchmarks.measuring import Turn, Variant, interleave
from tfdrl.benchmarks.processes import Job
from tfdrl.experience.frame_stacks import with_single_frames
from tfdrl.experience.transitions import (
    DEPTHS,
    DISCOUNT,
    LENGTH_STEPS,
    TransitionAssembler,
    TransitionBlock,
    TransitionItem,
)
from tfdrl.replay.client import connect
from tfdrl.replay.reading import ready_of
from tfdrl.replay.transition_dataset import priority_updates, sample_dataset, to_trajectory
from tfdrl.replay.transition_table import TABLE, transition_signature
from tfdrl.replay.transition_writer import TransitionWriter
from tfdrl.topology import Context

_INSERT_TRANSITIONS = 1500  # that are inserted again and again


def stepping(job: Job) -> dict[str, list[Turn]]:
    """Turns, in environment steps, of the actor and of what is below it.

    environment  the bare vector environment, with random actions
    inference    the same, acting greedily by a tf.function of the Q-network
    actor        the actor's loop with exploration, adapter and assembling, without writing
    """
    return actor_parts.compare(job, _greedy, _blocks)


def _greedy(agent, num_envs: int):
    """A plain tf.function from observations to greedy actions."""
    network = getattr(agent, "_q_network", None)

    @tf.function
    def greedy(observation):
        if network is None:
            return agent.policy.action(time_step.restart(observation, num_envs)).action
        return tf.argmax(network(observation)[0], axis=-1, output_type=tf.int32)

    return lambda observation: greedy(observation).numpy()


def _blocks(job: Job, environment, agent) -> Iterator[TransitionBlock | None]:
    """What the actor's assembler has after each step: a block, or None before it is full."""
    config, num_envs = job.config, environment.num_envs
    ladder = (config.exploration or exploration.epsilon_ladder)(config.actors * num_envs)
    policy = exploration.collect_policy(agent, ladder[:num_envs], job.seed)
    context = Context("actor", 0, config.actors, job.directory)
    block_steps = -(-config.actor_buffer_transitions // num_envs)
    assembler = TransitionAssembler(num_envs, config.n_step, config.gamma, block_steps)
    steps = ActorLoop(environment, policy, actor_parts.NoLearner(), context).steps()
    for step in with_single_frames(environment, steps):
        yield assembler.add(*step, 0)


def _collect(job: Job, transitions: int) -> list[TransitionBlock]:
    return actor_parts.collect(job, _blocks, lambda block: int(block.is_valid.sum()), transitions)


def inserting(job: Job) -> dict[str, list[Turn]]:
    """Turns, in transitions that the server has confirmed, of writing the same ones twice.

    raw     a plain loop over a `reverb.TrajectoryWriter` with its default settings
    writer  `TransitionWriter`
    """
    blocks = _collect(job, _INSERT_TRANSITIONS)
    variants = {"raw": _raw_inserting(job, blocks), "writer": _inserting(job, blocks)}
    return interleave("inserting", variants, job.rounds, job.server_pid)


def _inserting(job: Job, blocks: list[TransitionBlock]) -> Variant:
    num_envs, n_step = job.config.environments_per_actor, job.config.n_step
    writer = TransitionWriter(
        job.replay, num_envs, n_step, TIMEOUT_SECS, threading.Event(), _frame_stack(job)
    )
    return actor_parts.writing(writer, blocks, lambda: writer.confirm(TIMEOUT_SECS))


def _frame_stack(job: Job) -> int:
    with job.config.environment(num_envs=1, training=True, seed=job.seed) as environment:
        return environment.frame_stack


def _raw_inserting(job: Job, blocks: list[TransitionBlock]) -> Variant:
    n, frame_stack = job.config.n_step, _frame_stack(job)
    client = reverb.Client(str(job.replay))
    writer = client.trajectory_writer(num_keep_alive_refs=n + frame_stack)
    rows = [row for block in blocks for row in _raw_rows(block)]
    for _ in range(frame_stack):
        writer.append(rows[0][0])

    def observation(columns, length_steps):
        if frame_stack > 1:
            return columns[-n - frame_stack :]
        refs = [-1 - n, -1 - n + length_steps]
        return tree.map_structure(lambda column: column[refs], columns)

    def work():
        items = 0
        for row, transitions in rows:
            writer.append(row)
            for i, length_steps, priority in transitions:
                columns = writer.history[i]
                item = TransitionItem(
                    observation=observation(columns.observation, length_steps),
                    action=tree.map_structure(lambda x: x[-1:], columns.action),
                    step=columns.step[-1:],
                )
                writer.create_item(TABLE, priority, item)
                items += 1
                if items % UNCONFIRMED_ITEMS == 0:
                    writer.flush(UNCONFIRMED_ITEMS, timeout_ms=int(1000 * TIMEOUT_SECS))
        writer.flush(timeout_ms=int(1000 * TIMEOUT_SECS))
        return items

    return Variant(work)


def _raw_rows(block: TransitionBlock) -> list[tuple]:
    """Of each step, the `TransitionItem` of each environment; and (i, m, priority) of the items."""
    times, num_envs = block.is_valid.shape
    return [
        (
            tuple(
                tree.map_structure(lambda leaf: leaf[t, i], block.rows)  # noqa: B023
                for i in range(num_envs)
            ),
            [
                (i, int(block.length_steps[t, i]), float(block.priority[t, i]))
                for i in range(num_envs)
                if block.is_valid[t, i]
            ],
        )
        for t in range(times)
    ]


def sampling(job: Job) -> dict[str, list[Turn]]:
    """Turns, in transitions, of reading from the same table.

    raw      `reverb.TrajectoryDataset`, batched, with the same streams and samples under way
    learner  the learner's dataset and its queue
    """
    signature = _filled(job)
    variants = {
        "raw": _raw_sampling(job, signature),
        "learner": _learner_sampling(job, signature),
    }
    return interleave("sampling", variants, job.rounds, job.server_pid)


def _filled(job: Job):
    """Fills the table; the signature of its items."""
    # Several batches' worth: a table of few items would be sampled from a cache.
    transitions = max(4 * job.config.batch_size, 2000)
    write, written = _inserting(job, _collect(job, transitions)).work, 0
    while written < transitions:
        written += write()
    with job.config.environment(num_envs=1, training=True, seed=job.seed) as environment:
        return transition_signature(environment, job.config.n_step)


def prioritising(job: Job) -> dict[str, list[Turn]]:
    """Turns, in batches, of writing the priorities of one learner step back."""
    dataset = _sampled(job, _filled(job))
    keys = next(iter(dataset)).keys.numpy()[0]
    client, td_errors = connect(job.replay), np.linspace(-1.0, 1.0, len(keys), dtype=np.float32)

    def work():
        client.mutate_priorities(TABLE, updates=priority_updates(keys, td_errors)[0])
        return 1

    return interleave("priorities", {"priorities": Variant(work)}, job.rounds, job.server_pid)


def _raw_sampling(job: Job, signature) -> Variant:
    config = job.config
    in_flight = 2 * config.batch_size * config.updates_per_call
    ahead = 1 + config.sampler_workers * in_flight // config.batch_size
    batches = iter(
        learner_parts.raw_dataset(
            job, TABLE, signature, config.batch_size, in_flight, config.sampler_workers
        )
    )
    return learner_parts.reader_variant(lambda: next(batches), config.batch_size, ahead)


def _sampled(job: Job, signature) -> tf.data.Dataset:
    """The learner's."""
    config = job.config
    return sample_dataset(
        job.replay,
        signature,
        config.batch_size,
        config.updates_per_call,
        config.importance_exponent,
        config.prefetch_batches,
        config.sampler_workers,
    )


def _learner_sampling(job: Job, signature) -> Variant:
    config, dataset = job.config, _sampled(job, signature)
    read = learner_parts.learners_reader(job, TABLE, dataset, ready_of(config.prefetch_batches))
    units = config.batch_size * config.updates_per_call
    return learner_parts.reader_variant(read, units, config.prefetch_batches + 1)


def learning(job: Job) -> dict[str, list[Turn]]:
    """Turns, in learner steps, of `Trainer.train` on one batch in memory."""
    config, frame_stack = job.config, _frame_stack(job)
    _, trainer, draw = learner_parts.learner(
        job, lambda environment, agent: transition_signature(environment, config.n_step)
    )

    def item():
        found = draw()
        found.step[..., DISCOUNT] = config.gamma ** (config.n_step - 1)
        found.step[..., LENGTH_STEPS:DEPTHS] = config.n_step
        found.step[..., DEPTHS:] = frame_stack
        return to_trajectory(tf.nest.map_structure(tf.constant, found))

    items = [item() for _ in range(config.updates_per_call)]
    experience = tf.nest.map_structure(lambda *leaves: tf.stack(leaves), *items)
    weights = tf.ones([config.updates_per_call, config.batch_size])

    def work():
        trainer.train(experience, weights)
        return config.updates_per_call

    return interleave("training", {"train": Variant(work)}, job.rounds)
