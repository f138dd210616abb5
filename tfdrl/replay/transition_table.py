"""Reverb tables of transitions: what an item holds, how it is chosen, and what is refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import NamedTuple

import gin
import numpy as np
import reverb
import tensorflow as tf

from tfdrl import environments_tf
from tfdrl.environments.batched import BatchedEnvironment
from tfdrl.errors import ConfigurationError
from tfdrl.experience.transitions import STEP_COLUMNS, TransitionItem, step_columns

#: Name of the table that actors write and the learner samples.
TABLE = "transitions"


class TableDefaults(NamedTuple):
    """A paper's settings of `replay_table`, for what gin does not say."""

    max_size: int
    min_size: int
    sampler: str
    priority_exponent: float | None = None


#: Horgan 2018, appendix C.
APEX = TableDefaults(2_000_000, 50_000, "prioritized", 0.6)
#: Kapturowski 2019, table 2, in sequences; min_size is that of SEED RL's release.
R2D2 = TableDefaults(100_000, 5_000, "prioritized", 0.9)
#: Nair 2015, section 4: uniform, with Nature DQN's sizes.
GORILA = TableDefaults(1_000_000, 50_000, "uniform")


def transition_signature(environment: BatchedEnvironment, n_step: int) -> TransitionItem:
    """The Reverb signature of `TransitionItem` for an environment's specs.

    Where the environment stacks frames, each is stored once.

    Args:
      environment: gives the specs.
      n_step: n, steps of a full window.
    """

    def with_time(length):
        return lambda spec: tf.TensorSpec((length, *spec.shape), tf.as_dtype(spec.dtype))

    observation = environments_tf.to_tf_specs(environment.observation_spec)
    action = environments_tf.to_tf_specs(environment.action_spec)
    frame_stack, columns = environment.frame_stack, STEP_COLUMNS
    if frame_stack > 1:
        shape, columns = observation.shape[:-1], step_columns(n_step)
        observation = tf.TensorSpec((n_step + frame_stack, *shape), observation.dtype)
    else:
        observation = tf.nest.map_structure(with_time(2), observation)
    return TransitionItem(
        observation=observation,
        action=tf.nest.map_structure(with_time(1), action),
        step=tf.TensorSpec((1, columns), tf.float32),
    )


@gin.configurable
def replay_table(
    signature,
    name: str = TABLE,
    max_size: int | None = None,
    min_size: int | None = None,
    sampler: str | None = None,
    priority_exponent: float | None = None,
    remover: str = "fifo",
    remover_exponent: float = -0.4,
    samples_per_insert: float | None = None,
    error_buffer: float | None = None,
    max_times_sampled: int = 0,
    defaults: TableDefaults = APEX,
) -> reverb.Table:
    """A replay table as gin says; None is the value of the architecture's paper.

    Inserting into a full table removes an item first. Ape-X lets its memory grow past its limit
    and removes the excess every 100 learner steps; with removal at each insert actors are never
    blocked either, and the size is exact.

    Args:
      signature: nest of TensorSpecs of an item.
      name: of the table.
      max_size: capacity, in items.
      min_size: items before the first is sampled ("learning starts").
      sampler: "prioritized", "uniform" or "fifo".
      priority_exponent: alpha of P(i) = p_i^alpha / sum p^alpha. Priorities are stored raw.
      remover: "fifo", or "prioritized" by `remover_exponent` (Ape-X DPG).
      remover_exponent: negative: low priorities go first. All writers here keep priorities
        above `priorities.MINIMUM_PRIORITY`: a zero could never be chosen, and divides by zero here.
      samples_per_insert: holds acting and learning to this ratio; None leaves both free.
      error_buffer: how far the ratio may stray, in samples.
      max_times_sampled: removes an item after so many samples; 0 for no limit.
      defaults: of the architecture, which gives them.

    Raises:
      ConfigurationError: an unknown selector, or settings by which all would wait for ever.
    """
    max_size = defaults.max_size if max_size is None else max_size
    min_size = defaults.min_size if min_size is None else min_size
    sampler = defaults.sampler if sampler is None else sampler
    if priority_exponent is None:
        priority_exponent = defaults.priority_exponent or APEX.priority_exponent
    exponents = {"sampler": (sampler, priority_exponent), "remover": (remover, remover_exponent)}
    selectors = {role: _selector(role, *setting) for role, setting in exponents.items()}
    if remover == "prioritized" and not remover_exponent < 0:
        raise ConfigurationError(
            f"replay_table.remover_exponent = {remover_exponent} would remove what has the highest "
            "priority first; use a negative one, such as Ape-X DPG's -0.4, or remover = 'fifo'"
        )
    _check_sizes(max_size, min_size, samples_per_insert, error_buffer)
    if samples_per_insert is None:
        limiter = reverb.rate_limiters.MinSize(min_size)
    else:
        limiter = reverb.rate_limiters.SampleToInsertRatio(
            samples_per_insert, min_size, error_buffer
        )
    return reverb.Table(
        name=name,
        sampler=selectors["sampler"],
        remover=selectors["remover"],
        max_size=max_size,
        rate_limiter=limiter,
        max_times_sampled=max_times_sampled,
        signature=signature,
    )


def make_table(
    factory: Callable | None, signature, defaults: TableDefaults, name: str = TABLE
) -> reverb.Table:
    """An architecture's table: a user's factory makes it, or `replay_table` with its defaults.

    Args:
      factory: `factory(signature)`, also `(signature, name=)` for another name than `TABLE`.
      signature: nest of TensorSpecs of an item.
      defaults: for `replay_table`.
      name: of the table.
    """
    if factory is None or inspect.unwrap(factory) is inspect.unwrap(replay_table):
        return (factory or replay_table)(signature, name=name, defaults=defaults)
    return factory(signature) if name == TABLE else factory(signature, name=name)


def _selector(role: str, kind: str, exponent: float):
    if kind == "prioritized":
        return reverb.selectors.Prioritized(exponent)
    kinds = {"uniform": reverb.selectors.Uniform, "fifo": reverb.selectors.Fifo}
    if kind not in kinds:
        raise ConfigurationError(
            f"replay_table.{role} = {kind!r} is unknown; use 'prioritized', 'uniform' or 'fifo'"
        )
    return kinds[kind]()


def _check_sizes(max_size, min_size, samples_per_insert, error_buffer):
    if not 1 <= min_size <= max_size:
        raise ConfigurationError(
            f"replay_table.min_size = {min_size} with max_size = {max_size}: the table could "
            "never hold enough to be sampled, and the learner would wait for ever; "
            "min_size must be between 1 and max_size"
        )
    if samples_per_insert is None:
        return
    if samples_per_insert <= 0:
        raise ConfigurationError(
            f"replay_table.samples_per_insert = {samples_per_insert} must be positive"
        )
    least = max(1.0, samples_per_insert)
    if error_buffer is None or error_buffer < least:
        raise ConfigurationError(
            f"replay_table.error_buffer = {error_buffer} with samples_per_insert = "
            f"{samples_per_insert}: inserting and sampling would block each other for ever; "
            f"it must be at least max(1, samples_per_insert) = {least}"
        )
    if error_buffer > min_size * samples_per_insert:
        raise ConfigurationError(
            f"replay_table.error_buffer = {error_buffer} exceeds min_size * samples_per_insert = "
            f"{min_size * samples_per_insert}: sampling could start below min_size; "
            "use a smaller error_buffer or a larger min_size"
        )


def is_prioritized(table_info) -> bool:
    """Whether a table of `reverb.Client.server_info()` samples by priority."""
    return table_info.sampler_options.HasField("prioritized")


def check_signature(served, expected: TransitionItem, where: str) -> None:
    """Compares a served table's signature with this role's.

    Raises:
      ConfigurationError: shows both; the roles were started with different environments.
    """
    text = [
        [f"{np.dtype(s.dtype.as_numpy_dtype).name}{s.shape.as_list()}" for s in tf.nest.flatten(n)]
        for n in (served, expected)
    ]
    if text[0] != text[1]:
        raise ConfigurationError(
            f"the replay server at {where} holds items of {text[0]}, but this role's environment "
            f"makes items of {text[1]}: start both with the same gin file"
        )
