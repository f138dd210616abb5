"""Batches of unrolls as an agent is trained on them."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf
from tf_agents.trajectories import time_step, trajectory

from tfdrl import contracts
from tfdrl.types import Unrolls


class UnrollBatch(NamedTuple):
    """B unrolls as an agent takes them; the fresh ones first.

    experience    Trajectory of [B, T+1, ...]; at index T only the observation and the step type
                  mean anything
    policy_state  nest of [B, ...], before index 0
    last_reward   <float32>[B], that led to index 0
    version       <int64>[B], of the parameters that acted
    time_secs     <float64>[B], Unix time when the unroll was complete
    """

    experience: Any
    policy_state: Any
    last_reward: tf.Tensor
    version: tf.Tensor
    time_secs: tf.Tensor


def to_batch(unrolls: Unrolls) -> UnrollBatch:
    """`Unrolls` of tensors -> `UnrollBatch`."""
    steps = unrolls.steps

    def pad(leaf):  # T -> T+1
        return tf.concat([leaf, tf.zeros_like(leaf[:, :1])], axis=1)

    mid = tf.fill([tf.shape(steps.step_type)[0], 1], time_step.StepType.MID)
    experience = trajectory.Trajectory(
        step_type=steps.step_type,
        observation=steps.observation,
        action=tf.nest.map_structure(pad, unrolls.action),
        policy_info=tf.nest.map_structure(pad, unrolls.info),
        next_step_type=tf.concat([steps.step_type[:, 1:], mid], axis=1),
        reward=pad(steps.reward[:, 1:]),
        discount=pad(steps.discount[:, 1:]),
    )
    return UnrollBatch(
        experience,
        unrolls.policy_state,
        steps.reward[:, 0],
        unrolls.version,
        unrolls.time_secs,
    )


def train_arguments(agent, batch: UnrollBatch) -> dict[str, Any]:
    """What `agent.train` is given: the state before the unrolls only if it asks for that."""
    offered = {"policy_state": batch.policy_state, "last_reward": batch.last_reward}
    return {"experience": batch.experience, **contracts.arguments_taken(agent, offered)}
