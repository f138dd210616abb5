"""The parts of IMPALA: stepping (a), insertion (b), reading (c), training and V-trace alone (d)."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import reverb
import tensorflow as tf
import tree
from tf_agents.trajectories import time_step

from tfdrl.acting.exploration import collect_policy
from tfdrl.acting.loop import ActorLoop
from tfdrl.architectures.impala import Impala
from tfdrl.benchmarks import actor_parts, learner_parts
from tfdrl.benchmarks.actor_parts import TIMEOUT_SECS, UNCONFIRMED_ITEMS
from tfdrl.benchmarks.measuring import Turn, Variant, interleave
from tfdrl.benchmarks.processes import Job
from tfdrl.experience.frame_stacks import with_single_frames
from tfdrl.experience.unroll_assembler import UnrollAssembler
from tfdrl.experience.unroll_batches import to_batch, train_arguments
from tfdrl.ops import vtrace
from tfdrl.replay import unroll_tables
from tfdrl.replay.client import ReplayInfo
from tfdrl.replay.reading import nothing_ahead
from tfdrl.replay.unroll_dataset import unroll_dataset
from tfdrl.replay.unroll_tables import QUEUE, REPLAY
from tfdrl.replay.unroll_writer import UnrollWriter
from tfdrl.runtime import agent_factory
from tfdrl.topology import Context
from tfdrl.types import Unrolls

_INSERT_UNROLLS = 128  # that are inserted again and again
_TURN_BYTES = 256 << 20  # about so much is read in a turn at most
_TURN_BATCHES = (4, 300)  # but at least and at most so many batches
#: Batches that a reader may hold ready, beyond those it was asked for.
_READ_AHEAD_BATCHES = 5
_UNROLLS_AT_ONCE = 16  # many more unconfirmed ones would be complained of by Reverb
_VTRACES = 100  # in one call of TensorFlow, which costs more than some of them


def stepping(job: Job) -> dict[str, list[Turn]]:
    """Turns, in environment steps, of the actor and of what is below it.

    environment  the bare vector environment, with random actions
    inference    the same, acting by a tf.function of the agent's collect policy
    actor        the actor's loop with adapter and assembling of unrolls, without writing
    """
    return actor_parts.compare(job, _sampled, _unrolls)


def _sampled(agent, num_envs: int):
    """A plain tf.function from observations to sampled actions; it keeps the policy's state."""
    policy = agent.collect_policy
    state = [policy.get_initial_state(num_envs)]
    zeros = tf.zeros([num_envs])

    @tf.function
    def sample(observation, state):
        mid = tf.fill([num_envs], time_step.StepType.MID)
        step = policy.action(time_step.TimeStep(mid, zeros, zeros + 1.0, observation), state)
        return step.action, step.state

    def infer(observation):
        action, state[0] = sample(observation, state[0])
        return action.numpy()

    return infer


def _unrolls(job: Job, environment, agent) -> Iterator[Unrolls | None]:
    """What the actor's assembler has after each step: N unrolls, or None before they are full."""
    policy = collect_policy(agent, [0.0] * environment.num_envs, job.seed)
    context = Context("actor", 0, job.config.actors, job.directory)
    loop = ActorLoop(environment, policy, actor_parts.NoLearner(), context)
    assembler = UnrollAssembler(
        environment.num_envs, job.config.unroll_steps, frame_stack=environment.frame_stack
    )
    assembler.begin(loop.state)
    for step in with_single_frames(environment, loop.steps()):
        unrolls = assembler.add(*step, 0)
        if unrolls is not None:
            assembler.begin(loop.state)
        yield unrolls


def _collect(job: Job) -> list[Unrolls]:
    return actor_parts.collect(job, _unrolls, lambda each: len(each.version), _INSERT_UNROLLS)


def _tables(config: Impala) -> list[str]:
    """Those that an actor writes to."""
    return [QUEUE, REPLAY] if config.replay_share else [QUEUE]


def _writer(job: Job) -> UnrollWriter:
    return UnrollWriter(job.replay, _tables(job.config), TIMEOUT_SECS, threading.Event())


def inserting(job: Job) -> dict[str, list[Turn]]:
    """Turns, in unrolls that the server has confirmed, of writing the same ones twice.

    raw     a plain loop over a `reverb.TrajectoryWriter`, with some unconfirmed all the time
    writer  `UnrollWriter`, which waits for each N

    The tables are emptied now and then instead of being read; that counts in both.
    """
    unrolls, client = _collect(job), reverb.Client(str(job.replay))

    def empty():
        for name in _tables(job.config):
            client.reset(name)

    variants = {
        "raw": _raw_inserting(job, client, unrolls, empty),
        "writer": actor_parts.writing(_writer(job), unrolls, empty),
    }
    return interleave("inserting", variants, job.rounds, job.server_pid)


def _raw_inserting(job: Job, client, unrolls: Sequence[Unrolls], empty: Callable) -> Variant:
    writer = client.trajectory_writer(num_keep_alive_refs=1)
    names = _tables(job.config)
    rows = [
        tree.unflatten_as(each, row)
        for each in unrolls
        for row in zip(*map(list, tree.flatten(each)))
    ]

    def work():
        for row in rows:
            writer.append(row)
            item = tree.map_structure(lambda column: column[-1:], writer.history)
            for name in names:
                writer.create_item(name, 1.0, item)
            writer.flush(UNCONFIRMED_ITEMS, timeout_ms=int(1000 * TIMEOUT_SECS))
        writer.flush(timeout_ms=int(1000 * TIMEOUT_SECS))
        empty()
        return len(rows)

    return Variant(work)


def reading(job: Job) -> dict[str, list[Turn]]:
    """Turns, in unrolls of whole batches, of reading from the same queue.

    raw      `reverb.TrajectoryDataset`, batched; two of them with a replay
    learner  the learner's dataset and its queue

    An unroll can be read once. Before each turn the queue is filled up, and the turn ends before
    it is empty, so that no reader waits for a writer.
    """
    config = job.config
    with config.environment(num_envs=1, training=True, seed=job.seed) as environment:
        policy = agent_factory.make_agent(config.agent, environment).collect_policy
        signature = unroll_tables.stored_signature(environment, policy, config.unroll_steps)
    batch_bytes = config.batch_size * unroll_tables.unroll_bytes(signature)
    batches = int(np.clip(_TURN_BYTES // batch_bytes, *_TURN_BATCHES))
    # Two readers, each with its own read-ahead, and what is taken before a turn.
    top_up = _filler(job, (batches + 3 * _READ_AHEAD_BATCHES) * config.fresh_unrolls)
    variants = {
        name: learner_parts.reader_variant(
            make(job, signature), config.batch_size, _READ_AHEAD_BATCHES, top_up, batches
        )
        for name, make in (("raw", _raw_reader), ("learner", _learner_reader))
    }
    return interleave("reading", variants, job.rounds, job.server_pid)


def _filler(job: Job, unrolls: int) -> Callable[[], None]:
    """Fills the queue up to so many unrolls, repeating some."""
    # Some at once, for the writer waits for the server at the end of each.
    every = tf.nest.map_structure(lambda *leaves: np.concatenate(leaves), *_collect(job))
    source = itertools.cycle(
        tf.nest.map_structure(lambda leaf: leaf[i : i + _UNROLLS_AT_ONCE], every)  # noqa: B023
        for i in range(0, len(every.version), _UNROLLS_AT_ONCE)
    )
    writer, queue = _writer(job), ReplayInfo(job.replay, TIMEOUT_SECS, QUEUE)

    def fill():
        end = writer.items + unrolls - queue.table(timeout_secs=int(TIMEOUT_SECS)).current_size
        while writer.items < end:
            writer.write(next(source))

    return fill


def _raw_reader(job: Job, signature: Unrolls) -> Callable:
    config, row = job.config, unroll_tables.with_row(signature)
    sizes = {QUEUE: config.fresh_unrolls, REPLAY: config.batch_size - config.fresh_unrolls}
    datasets = [
        # Or TensorFlow would fetch ahead, unasked, all that the queue has for both readers.
        iter(nothing_ahead(learner_parts.raw_dataset(job, table, row, size, size, workers=1)))
        for table, size in sizes.items()
        if table in _tables(config)
    ]
    return lambda: [next(batches) for batches in datasets]


def _learner_reader(job: Job, signature: Unrolls) -> Callable:
    config = job.config
    replayed = config.batch_size - config.fresh_unrolls
    dataset = unroll_dataset(job.replay, signature, config.batch_size, replayed)
    return learner_parts.learners_reader(job, QUEUE, dataset, 1)


def learning(job: Job) -> dict[str, list[Turn]]:
    """Turns, in learner steps, on one batch in memory.

    train   `Trainer.train_once`
    vtrace  V-trace alone, on tensors [T, B]
    """

    def signature_of(environment, agent):
        return unroll_tables.stored_signature(
            environment, agent.collect_policy, job.config.unroll_steps
        )

    agent, trainer, draw = learner_parts.learner(job, signature_of)
    unrolls = tf.nest.map_structure(tf.constant, draw())
    mid = tf.fill(tf.shape(unrolls.steps.step_type), time_step.StepType.MID)
    batch = to_batch(unrolls._replace(steps=unrolls.steps._replace(step_type=mid)))

    def train():
        trainer.train_once(**train_arguments(agent, batch))
        return 1

    variants = {"train": Variant(train), "vtrace": vtrace_variant(job.config)}
    return interleave("training", variants, job.rounds)


def vtrace_variant(config: Impala) -> Variant:
    """V-trace as it is in the graph of a learner step, without the call of that graph.

    What the loop around it costs counts, too: about as much as V-trace over 10 steps.
    """
    shape = (config.unroll_steps, config.batch_size)
    generator = np.random.default_rng(0)
    log_rhos, rewards, values, next_values = (
        tf.constant(generator.uniform(-1, 1, shape), tf.float32) for _ in range(4)
    )
    discounts = tf.fill(shape, 0.99)
    is_end = tf.constant(generator.uniform(size=shape) < 0.01)

    @tf.function
    def compute(log_rhos, discounts, rewards, values, next_values, is_end):
        for _ in tf.range(_VTRACES):
            found = vtrace.vtrace(log_rhos, discounts, rewards, values, next_values, is_end)
            # Each is made of the one before, so that TensorFlow computes them all.
            values, log_rhos = found.vs, tf.minimum(found.pg_advantages, 0.0)
        return values

    def work():
        compute(log_rhos, discounts, rewards, values, next_values, is_end).numpy()
        return _VTRACES

    return Variant(work)
