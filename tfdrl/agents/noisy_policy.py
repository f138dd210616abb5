"""A deterministic policy with noise that also reports the values that Ape-X's priorities need."""

from __future__ import annotations

import numpy as np
import tensorflow as tf
from tf_agents.policies import tf_policy
from tf_agents.trajectories import StepType, policy_step

from tfdrl.agents.q_policy import QInfo


class NoisyPolicy(tf_policy.TFPolicy):
    """Acts by an actor network plus noise, within the bounds of the action.

    The noise of an environment is its standard deviation times half the action's range: white
    Gaussian noise, or an Ornstein-Uhlenbeck process x <- (1 - damping) x + std N(0, 1) (Lillicrap
    2016, section 7), which is 0 at an episode's first step and travels as the policy's state.

    `QInfo.q_taken` is q(s, a) of the action that was taken, `max_q` is q(s, pi(s)).

    Args:
      time_step_spec, action_spec: of the environment, without batch dimension; one bounded action.
      actor: `actor(observation)` -> action.
      critic: `critic((observation, action))` -> <float32>[B].
      std: <float>[N] or scalar, of the noise in each environment, in half ranges of the action.
      damping: theta of the Ornstein-Uhlenbeck process; None for white noise.
      seed: of the noise. The generator is a checkpointable attribute.
    """

    def __init__(self, time_step_spec, action_spec, actor, critic, std, damping=None, seed=0):
        info_spec = QInfo(*(tf.TensorSpec([], tf.float32, name) for name in QInfo._fields))
        state_spec = () if damping is None else tf.TensorSpec(_leaf(action_spec).shape, tf.float32)
        super().__init__(
            time_step_spec,
            action_spec,
            policy_state_spec=state_spec,
            info_spec=info_spec,
            automatic_state_reset=False,
        )
        self._actor, self._critic, self._damping = actor, critic, damping
        self._std = tf.constant(np.asarray(std, np.float32))
        self.generator = tf.random.Generator.from_seed(seed)

    def _variables(self):
        return [*self._actor.variables, *self._critic.variables]

    def _action(self, time_step, policy_state, seed):
        del seed
        action, _ = self._actor(time_step.observation, step_type=time_step.step_type)
        spec, greedy = _leaf(self.action_spec), _leaf(action)
        by_environment = [-1] + [1] * spec.shape.rank
        noise = self.generator.normal(tf.shape(greedy)) * tf.reshape(self._std, by_environment)
        if self._damping is not None:
            is_first = tf.reshape(
                time_step.step_type == StepType.FIRST, [-1] + [1] * spec.shape.rank
            )
            noise += (1.0 - self._damping) * policy_state
            policy_state = noise = tf.where(is_first, 0.0, noise)
        half_range = (spec.maximum - spec.minimum) / 2.0
        taken = tf.clip_by_value(greedy + noise * half_range, spec.minimum, spec.maximum)
        both = tf.concat([taken, greedy], axis=0)  # one call of the critic
        observation = tf.nest.map_structure(
            lambda leaf: tf.concat([leaf, leaf], axis=0), time_step.observation
        )
        q, _ = self._critic((observation, tf.nest.pack_sequence_as(self.action_spec, [both])))
        q_taken, q_greedy = tf.split(tf.reshape(q, [-1]), 2)
        action = tf.nest.pack_sequence_as(self.action_spec, [taken])
        return policy_step.PolicyStep(action, policy_state, QInfo(q_taken, q_greedy))


def _leaf(nest):
    (leaf,) = tf.nest.flatten(nest)
    return leaf
