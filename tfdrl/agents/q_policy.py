"""Epsilon-greedy acting that also reports the Q-values that Ape-X's priorities need."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tf_agents.policies import tf_policy
from tf_agents.trajectories import policy_step

from tfdrl.ops import action_masks


class QInfo(NamedTuple):
    """What an acting step knew: Q(s, a) of the action taken and max_a Q(s, a), <float32>[N]."""

    q_taken: tf.Tensor
    max_q: tf.Tensor


def epsilon_greedy(q: tf.Tensor, epsilon, generator: tf.random.Generator, mask=None) -> tf.Tensor:
    """The best action, or with probability epsilon one uniformly at random, <int32>[N].

    Args:
      q: <float32>[N, A].
      epsilon: <float32>[N] or scalar.
      generator: of the random numbers.
      mask: <any>[N, A], which actions are allowed; None for all.
    """
    batch = tf.shape(q)[0]
    if mask is None:
        greedy = tf.argmax(q, axis=-1, output_type=tf.int32)
        random = generator.uniform([batch], maxval=tf.shape(q)[1], dtype=tf.int32)
    else:
        greedy = action_masks.best_action(q, mask)
        random = action_masks.best_action(generator.uniform(tf.shape(q)), mask)
    return tf.where(generator.uniform([batch]) < epsilon, random, greedy)


class EpsilonGreedyQPolicy(tf_policy.TFPolicy):
    """Acts greedily by a Q-network, or uniformly at random with a probability per environment.

    Args:
      time_step_spec, action_spec: of the environment, without batch dimension.
      q_network: values [B, A] of an observation.
      epsilon: <float>[N] or scalar, the probability of a random action in each environment.
      seed: of the random actions. The generator is a checkpointable attribute.
      splitter: gives (observation, mask), of a masked network; see `masked_network.mask_alone`.
    """

    def __init__(
        self, time_step_spec, action_spec, q_network, epsilon, seed: int = 0, splitter=None
    ):
        info_spec = QInfo(*(tf.TensorSpec([], tf.float32, name) for name in QInfo._fields))
        super().__init__(
            time_step_spec,
            action_spec,
            info_spec=info_spec,
            observation_and_action_constraint_splitter=splitter,
            automatic_state_reset=False,
        )
        self._q_network = q_network
        self._epsilon = tf.Variable(np.asarray(epsilon, np.float32), trainable=False)
        self.generator = tf.random.Generator.from_seed(seed)

    def set_epsilon(self, epsilon) -> None:
        """Changes the probability of random actions; same shape as before."""
        self._epsilon.assign(np.asarray(epsilon, np.float32))

    def _variables(self):
        return self._q_network.variables

    def _action(self, time_step, policy_state, seed):
        del seed
        q, _ = self._q_network(time_step.observation, step_type=time_step.step_type)
        splitter = self.observation_and_action_constraint_splitter
        mask = splitter(time_step.observation)[1] if splitter else None
        action = epsilon_greedy(q, self._epsilon, self.generator, mask)
        info = QInfo(tf.gather(q, action, batch_dims=1), tf.reduce_max(q, axis=-1))
        return policy_step.PolicyStep(tf.cast(action, self.action_spec.dtype), policy_state, info)
