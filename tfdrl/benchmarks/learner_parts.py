"""What learners of any architecture with a replay have in common: reading (c), training (d)."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import reverb
import tensorflow as tf

from tfdrl.benchmarks.actor_parts import TIMEOUT_SECS
from tfdrl.benchmarks.measuring import Variant
from tfdrl.benchmarks.processes import Job
from tfdrl.errors import UnavailableError
from tfdrl.learning.devices import strategy as default_strategy
from tfdrl.learning.trainer import Trainer
from tfdrl.replay.client import ReplayInfo
from tfdrl.replay.reading import Samples
from tfdrl.runtime import agent_factory


def raw_dataset(
    job: Job, table: str, signature, batch_size: int, in_flight: int, workers: int
) -> tf.data.Dataset:
    """A bare `reverb.TrajectoryDataset` of items of these specs, batched.

    Each of the workers, its streams, has so many samples under way.
    """
    dataset = reverb.TrajectoryDataset(
        str(job.replay),
        table,
        dtypes=tf.nest.map_structure(lambda spec: spec.dtype, signature),
        shapes=tf.nest.map_structure(lambda spec: spec.shape, signature),
        max_in_flight_samples_per_worker=in_flight,
        num_workers_per_iterator=workers,
        rate_limiter_timeout_ms=int(1000 * TIMEOUT_SECS),
    )
    return dataset.batch(batch_size, drop_remainder=True)


def learners_reader(job: Job, table: str, dataset, ready: int) -> Callable[[], None]:
    """The learner's queue over its dataset, `ready` calls ahead: each call takes one from it."""
    info = ReplayInfo(job.replay, TIMEOUT_SECS, table)
    samples = Samples(dataset, ready, info, threading.Event())

    def read():
        if samples.next(TIMEOUT_SECS) is None:
            raise UnavailableError(f"no samples within {TIMEOUT_SECS:g} s: {info.check()}")

    return read


def reader_variant(
    read: Callable[[], object],
    units: int,
    ahead: int,
    top_up: Callable[[], None] = lambda: None,
    most_reads: int | None = None,
) -> Variant:
    """What reads `units` at once; what was read ahead during the other's turn is not counted.

    Before a turn `top_up` sees to it that there is enough, and `ahead` reads are done. A turn ends
    with `most_reads`, where what was read is gone.
    """

    def prepare():
        top_up()
        for _ in range(ahead):
            read()

    def work():
        read()
        return units

    return Variant(work, prepare, None if most_reads is None else most_reads * units)


def learner(job: Job, signature_of: Callable) -> tuple:
    """The agent, its trainer, and a function that draws a random item of [B, ...].

    The values have the right shapes and types; the arithmetic costs the same.

    Args:
      job: what to measure.
      signature_of: `signature_of(environment, agent)` -> nest of the specs of one item.
    """
    config = job.config
    strategy = (config.strategy or default_strategy)()
    with config.environment(num_envs=1, training=True, seed=job.seed) as environment:
        with strategy.scope():
            agent = agent_factory.make_agent(config.agent, environment, config.compute_dtype)
        signature, spec = signature_of(environment, agent), environment.action_spec
        num_actions = spec.num_values if getattr(spec, "is_discrete", False) else 1
    generator = np.random.default_rng(0)

    def draw(spec):
        shape, dtype = (config.batch_size, *spec.shape), spec.dtype.as_numpy_dtype
        if spec.dtype == tf.uint8:
            return generator.integers(0, 256, shape, dtype)
        if spec.dtype.is_integer:
            return generator.integers(0, num_actions, shape, dtype)
        # Positive: some are the deviations of a distribution.
        return generator.uniform(0.1, 1.0, shape).astype(dtype)

    trainer = Trainer(agent, strategy, config.max_bad_steps, config.jit_compile)
    return agent, trainer, lambda: tf.nest.map_structure(draw, signature)
