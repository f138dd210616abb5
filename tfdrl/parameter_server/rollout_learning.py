"""What a worker of A3C learns from its rollouts with."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfdrl import contracts
from tfdrl.environments.batched import BatchedEnvironment
from tfdrl.experience.frame_stacks import with_stacks
from tfdrl.experience.unroll_batches import to_batch, train_arguments
from tfdrl.parameter_server.gradients import LossGradient
from tfdrl.replay import unroll_tables
from tfdrl.types import Unrolls


def rollout_gradient(
    agent, policy, environment: BatchedEnvironment, t_max: int, jit_compile: bool = False
) -> LossGradient:
    """The gradient of an agent's loss on rollouts, `Unrolls` of [N, T, ...].

    Where the environment stacks frames, the rollouts have single ones.

    Args:
      agent: that trains on unrolls.
      policy: by which it acts here.
      environment: N environments.
      t_max: T, to which the agent's lookahead_steps are added.
      jit_compile: whether XLA compiles it.
    """
    steps = t_max + contracts.lookahead_steps(agent)
    signature = unroll_tables.stored_signature(environment, policy, steps)
    example = tf.nest.map_structure(
        lambda spec: np.zeros((environment.num_envs, *spec.shape), spec.dtype.as_numpy_dtype),
        signature,
    )

    def arguments(unrolls: Unrolls):
        found = train_arguments(agent, to_batch(unrolls))
        return {**found, "experience": with_stacks(found["experience"])}

    return LossGradient(agent, arguments, [example], jit_compile)
