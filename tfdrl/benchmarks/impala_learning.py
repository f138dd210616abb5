"""The parts of IMPALA's learner: reading unrolls (c) and training, of that V-trace (d)."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

import numpy as np
import reverb
import tensorflow as tf
from tf_agents.trajectories import time_step

from tfdrl.architectures.impala import Impala
from tfdrl.benchmarks import impala_acting
from tfdrl.benchmarks.measuring import Turn, Variant, interleave
from tfdrl.benchmarks.subject import PartJob
from tfdrl.errors import UnavailableError
from tfdrl.experience.unroll_batches import to_batch, train_arguments
from tfdrl.learning.devices import strategy as default_strategy
from tfdrl.learning.trainer import Trainer
from tfdrl.ops import vtrace
from tfdrl.replay import unroll_tables
from tfdrl.replay.client import ReplayInfo
from tfdrl.replay.reading import Samples, nothing_ahead
from tfdrl.replay.unroll_dataset import unroll_dataset
from tfdrl.replay.unroll_tables import QUEUE, REPLAY
from tfdrl.runtime import agent_factory
from tfdrl.types import Unrolls

_TIMEOUT_SECS = 60.0
_TURN_BYTES = 256 << 20  # about so much is read in a turn at most
_TURN_BATCHES = (4, 300)  # but at least and at most so many batches
#: Batches that a reader may hold ready, beyond those it was asked for.
_READ_AHEAD_BATCHES = 5
_UNROLLS_AT_ONCE = 16  # many more unconfirmed ones would be complained of by Reverb
_VTRACES = 100  # in one call of TensorFlow, which costs more than some of them


def reading(job: PartJob) -> dict[str, list[Turn]]:
    """Turns, in unrolls of whole batches, of reading from the same queue.

    raw      `reverb.TrajectoryDataset`, batched; two of them with a replay
    learner  the learner's dataset and its queue

    An unroll can be read once. Before each turn the queue is filled up, and the turn ends before
    it is empty, so that no reader waits for a writer.
    """
    config, signature = job.config, _signature(job)
    batch_bytes = config.batch_size * unroll_tables.unroll_bytes(signature)
    least, most = _TURN_BATCHES
    batches = int(np.clip(_TURN_BYTES // batch_bytes, least, most))
    # Two readers, each with its own read-ahead, and what `prepare` takes.
    top_up = _filler(job, (batches + 3 * _READ_AHEAD_BATCHES) * config.fresh_unrolls)
    readers = {"raw": _raw_reader, "learner": _learner_reader}
    variants = {}
    for name, make in readers.items():
        read = make(job, signature)
        variants[name] = Variant(
            _counted(read, config.batch_size),
            _prepared(top_up, read),
            batches * config.batch_size,
        )
    return interleave("reading", variants, job.rounds, job.server_pid)


def _signature(job: PartJob) -> Unrolls:
    config = job.config
    with config.environment(num_envs=1, training=True, seed=job.seed) as environment:
        policy = agent_factory.make_agent(config.agent, environment).collect_policy
        return unroll_tables.unroll_signature(environment, policy, config.unroll_steps)


def _counted(read: Callable, units: int) -> Callable[[], int]:
    def work():
        read()
        return units

    return work


def _prepared(top_up: Callable, read: Callable) -> Callable[[], None]:
    def prepare():
        top_up()
        for _ in range(_READ_AHEAD_BATCHES):  # what was read before this turn is not counted
            read()

    return prepare


def _filler(job: PartJob, unrolls: int) -> Callable[[], None]:
    """Fills the queue up to so many unrolls, repeating some."""
    # Some at once, for the writer waits for the server at the end of each.
    found = impala_acting.collect(job)
    every = tf.nest.map_structure(lambda *leaves: np.concatenate(leaves), *found)
    source = itertools.cycle(
        tf.nest.map_structure(lambda leaf: leaf[i : i + _UNROLLS_AT_ONCE], every)  # noqa: B023
        for i in range(0, len(every.version), _UNROLLS_AT_ONCE)
    )
    writer = impala_acting.make_writer(job)
    queue = ReplayInfo(job.replay, _TIMEOUT_SECS, QUEUE)

    def fill():
        end = writer.items + unrolls - queue.table(timeout_secs=int(_TIMEOUT_SECS)).current_size
        while writer.items < end:
            writer.write(next(source))

    return fill


def _raw_reader(job: PartJob, signature: Unrolls) -> Callable:
    config, row = job.config, unroll_tables.with_row(signature)
    sizes = {QUEUE: config.fresh_unrolls, REPLAY: config.batch_size - config.fresh_unrolls}
    datasets = []
    for table in impala_acting.tables(config):
        dataset = reverb.TrajectoryDataset(
            str(job.replay),
            table,
            dtypes=tf.nest.map_structure(lambda spec: spec.dtype, row),
            shapes=tf.nest.map_structure(lambda spec: spec.shape, row),
            max_in_flight_samples_per_worker=sizes[table],
            num_workers_per_iterator=1,
            rate_limiter_timeout_ms=int(1000 * _TIMEOUT_SECS),
        )
        dataset = dataset.batch(sizes[table], drop_remainder=True)
        # Or TensorFlow would fetch ahead, unasked, all that the queue has for both readers.
        datasets.append(iter(nothing_ahead(dataset)))
    return lambda: [next(batches) for batches in datasets]


def _learner_reader(job: PartJob, signature: Unrolls) -> Callable:
    config = job.config
    dataset = unroll_dataset(job.replay, signature, config.batch_size, config.replay_share)
    info = ReplayInfo(job.replay, _TIMEOUT_SECS, QUEUE)
    samples = Samples(dataset, 1, info, threading.Event())

    def read():
        if samples.next(_TIMEOUT_SECS) is None:
            raise UnavailableError(f"no unrolls within {_TIMEOUT_SECS:g} s: {info.check()}")

    return read


def learning(job: PartJob) -> dict[str, list[Turn]]:
    """Turns, in learner steps, on one batch in memory.

    train   `Trainer.train_once`
    vtrace  V-trace alone, on tensors [T, B]
    """
    config = job.config
    strategy = (config.strategy or default_strategy)()
    with config.environment(num_envs=1, training=True, seed=job.seed) as environment:
        with strategy.scope():
            agent = agent_factory.make_agent(config.agent, environment)
        signature = unroll_tables.unroll_signature(
            environment, agent.collect_policy, config.unroll_steps
        )
        spec = environment.action_spec
        num_actions = spec.num_values if getattr(spec, "is_discrete", False) else 1
    trainer = Trainer(agent, strategy, config.max_bad_steps)
    batch = to_batch(_random_unrolls(config, signature, num_actions))

    def train():
        trainer.train_once(**train_arguments(agent, batch))
        return 1

    variants = {"train": Variant(train), "vtrace": vtrace_variant(config)}
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


def _random_unrolls(config: Impala, signature: Unrolls, num_actions: int) -> Unrolls:
    """Random unrolls [B, ...] of the right shapes; the arithmetic costs the same."""
    generator = np.random.default_rng(0)

    def draw(spec):
        shape = (config.batch_size, *spec.shape)
        if spec.dtype == tf.uint8:
            return tf.constant(generator.integers(0, 256, shape, np.uint8))
        if spec.dtype.is_integer:
            return tf.constant(generator.integers(0, num_actions, shape), spec.dtype)
        # Positive: some are the deviations of a distribution.
        return tf.constant(generator.uniform(0.1, 1.0, shape), spec.dtype)

    found = tf.nest.map_structure(draw, signature)
    steps = found.steps
    mid = tf.fill(tf.shape(steps.step_type), time_step.StepType.MID)
    return found._replace(steps=steps._replace(step_type=mid))
