"""Reverb tables of unrolls: the queue that is consumed once, and the replay that is sampled."""

from __future__ import annotations

import numpy as np
import reverb
import tensorflow as tf

from tfdrl import environments_tf
from tfdrl.environments.batched import BatchedEnvironment
from tfdrl.experience import frame_stacks
from tfdrl.runtime.plain_nests import plain
from tfdrl.types import TimeSteps, Unrolls

#: First in, first out; each unroll is taken once, and a full queue makes the actors wait.
QUEUE = "queue"
#: The same unrolls once more, sampled uniformly; the oldest makes room.
REPLAY = "unrolls"


def unroll_signature(environment: BatchedEnvironment, policy, unroll_steps: int) -> Unrolls:
    """The Reverb signature of one unroll: `Unrolls` without the batch dimension.

    Args:
      environment: gives the specs of observations and actions.
      policy: the collect policy: what it reports and its state.
      unroll_steps: T.
    """

    def along_time(length):
        return lambda spec: tf.TensorSpec([length, *spec.shape], spec.dtype)

    scalars = {"step_type": tf.int32, "reward": tf.float32, "discount": tf.float32}
    steps = {
        **{name: tf.TensorSpec([], dtype) for name, dtype in scalars.items()},
        "observation": environments_tf.to_tf_specs(environment.observation_spec),
    }
    actions = environments_tf.to_tf_specs(environment.action_spec)
    return Unrolls(
        steps=tf.nest.map_structure(along_time(unroll_steps + 1), TimeSteps(**steps)),
        action=tf.nest.map_structure(along_time(unroll_steps), actions),
        info=tf.nest.map_structure(along_time(unroll_steps), plain(policy.info_spec)),
        policy_state=tf.nest.map_structure(
            lambda spec: tf.TensorSpec(spec.shape, spec.dtype), plain(policy.policy_state_spec)
        ),
        version=tf.TensorSpec([], tf.int64),
        time_secs=tf.TensorSpec([], tf.float64),
    )


def stored_signature(environment: BatchedEnvironment, policy, unroll_steps: int) -> Unrolls:
    """`unroll_signature`; where the environment stacks frames, each travels and is stored once."""
    signature = unroll_signature(environment, policy, unroll_steps)
    return frame_stacks.thin_signature(signature, environment.frame_stack)


def with_row(signature: Unrolls) -> Unrolls:
    """The signature as Reverb wants it: an item is one row of a stream."""
    return tf.nest.map_structure(
        lambda spec: tf.TensorSpec([1, *spec.shape], spec.dtype), signature
    )


def unrolls_in_flight(fresh: int) -> int:
    """How many unrolls Reverb takes out of the queue before anybody has asked for them.

    Args:
      fresh: unrolls of one batch that come from the queue.
    """
    # Reading by half a batch costs what by a whole one does; by a quarter, a third more CPU time.
    return max(1, fresh // 2)


def queue_table_capacity(queue_capacity: int, fresh: int) -> int:
    """Of the table, in unrolls: the queue is what it holds and what is in flight from it."""
    return max(1, queue_capacity - unrolls_in_flight(fresh))


def unroll_tables(
    signature: Unrolls, queue_capacity: int, replay_capacity: int
) -> list[reverb.Table]:
    """The queue, and the replay if its capacity is not 0, both in unrolls."""
    queue = reverb.Table.queue(QUEUE, queue_capacity, signature=with_row(signature))
    if not replay_capacity:
        return [queue]
    replay = reverb.Table(
        name=REPLAY,
        sampler=reverb.selectors.Uniform(),
        remover=reverb.selectors.Fifo(),
        max_size=replay_capacity,
        rate_limiter=reverb.rate_limiters.MinSize(1),
        signature=with_row(signature),
    )
    return [queue, replay]


def unroll_bytes(signature: Unrolls) -> int:
    """Size of one unroll before compression."""
    return sum(int(np.prod(spec.shape)) * spec.dtype.size for spec in tf.nest.flatten(signature))
