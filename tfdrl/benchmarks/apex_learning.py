"""The parts of Ape-X's learner: reading samples (c) and training (d)."""

from __future__ import annotations

import threading

import numpy as np
import reverb
import tensorflow as tf

from tfdrl.architectures.apex import Apex
from tfdrl.benchmarks import apex_acting
from tfdrl.benchmarks.measuring import Turn, Variant, interleave
from tfdrl.benchmarks.subject import PartJob
from tfdrl.errors import UnavailableError
from tfdrl.experience.transitions import DISCOUNT, TransitionItem
from tfdrl.learning.devices import strategy as default_strategy
from tfdrl.learning.trainer import Trainer
from tfdrl.replay.client import ReplayInfo
from tfdrl.replay.reading import Samples, ready_of
from tfdrl.replay.transition_dataset import sample_dataset, to_trajectory
from tfdrl.replay.transition_table import TABLE, transition_signature
from tfdrl.runtime import agent_factory
from tfdrl.topology import Address

_TIMEOUT_SECS = 60.0


def sampling(job: PartJob) -> dict[str, list[Turn]]:
    """Turns, in transitions, of reading from the same table.

    raw      `reverb.TrajectoryDataset`, batched, with the same streams and samples under way
    learner  the learner's dataset and its queue
    """
    # Several batches' worth: a table of few items would be sampled from a cache.
    apex_acting.fill(job, max(4 * job.config.batch_size, 2000))
    signature = _signature(job.config, job.seed)
    variants = {
        "raw": _raw_sampling(job.config, signature, job.replay),
        "learner": _learner_sampling(job.config, signature, job.replay),
    }
    return interleave("sampling", variants, job.rounds, job.server_pid)


def _signature(config: Apex, seed: int) -> TransitionItem:
    with config.environment(num_envs=1, training=True, seed=seed) as environment:
        return transition_signature(environment)


def _raw_sampling(config: Apex, signature: TransitionItem, replay: Address) -> Variant:
    in_flight = 2 * config.batch_size * config.updates_per_call
    dataset = reverb.TrajectoryDataset(
        str(replay),
        TABLE,
        dtypes=tf.nest.map_structure(lambda spec: spec.dtype, signature),
        shapes=tf.nest.map_structure(lambda spec: spec.shape, signature),
        max_in_flight_samples_per_worker=in_flight,
        num_workers_per_iterator=config.sampler_workers,
    )
    batches = iter(dataset.batch(config.batch_size, drop_remainder=True))

    def prepare():  # what was read during the other's turn is not counted
        for _ in range(1 + config.sampler_workers * in_flight // config.batch_size):
            next(batches)

    def work():
        next(batches)
        return config.batch_size

    return Variant(work, prepare)


def _learner_sampling(config: Apex, signature: TransitionItem, replay: Address) -> Variant:
    dataset = sample_dataset(
        replay,
        signature,
        config.batch_size,
        config.updates_per_call,
        config.importance_exponent,
        config.prefetch_batches,
        config.sampler_workers,
    )
    info = ReplayInfo(replay, _TIMEOUT_SECS)
    ready = ready_of(config.prefetch_batches)
    samples = Samples(dataset, ready, info, threading.Event())

    def work():
        if samples.next(_TIMEOUT_SECS) is None:
            raise UnavailableError(f"no samples within {_TIMEOUT_SECS:g} s: {info.check()}")
        return config.batch_size * config.updates_per_call

    def prepare():
        for _ in range(config.prefetch_batches + 1):
            work()

    return Variant(work, prepare)


def learning(job: PartJob) -> dict[str, list[Turn]]:
    """Turns, in learner steps, of `Trainer.train` on one batch in memory."""
    config = job.config
    strategy = (config.strategy or default_strategy)()
    with config.environment(num_envs=1, training=True, seed=job.seed) as environment:
        signature = transition_signature(environment)
        with strategy.scope():
            agent = agent_factory.make_agent(config.agent, environment)
        num_actions = environment.action_spec.num_values if _counts(environment) else None
    trainer = Trainer(agent, strategy, config.max_bad_steps)
    experience = _experience(config, signature, num_actions)
    weights = tf.ones([config.updates_per_call, config.batch_size])

    def work():
        trainer.train(experience, weights)
        return config.updates_per_call

    return interleave("training", {"train": Variant(work)}, job.rounds)


def _counts(environment) -> bool:
    return getattr(environment.action_spec, "is_discrete", False)


def _experience(config: Apex, signature: TransitionItem, num_actions: int | None):
    """Random experience [K, B, 2, ...] of the right shapes; the arithmetic costs the same."""
    generator = np.random.default_rng(0)
    updates, batch_size = config.updates_per_call, config.batch_size

    def draw(spec):
        shape = (batch_size, *spec.shape)
        if spec.dtype == tf.uint8:
            return generator.integers(0, 256, shape, np.uint8)
        if spec.dtype.is_integer:
            return generator.integers(0, num_actions or 1, shape, spec.dtype.as_numpy_dtype)
        return generator.uniform(-1, 1, shape).astype(spec.dtype.as_numpy_dtype)

    def item():
        found = tf.nest.map_structure(draw, signature)
        found.step[..., DISCOUNT] = config.gamma ** (config.n_step - 1)
        return to_trajectory(tf.nest.map_structure(tf.constant, found))

    items = [item() for _ in range(updates)]
    return tf.nest.map_structure(lambda *leaves: tf.stack(leaves), *items)
