"""Acting by a recurrent Q-network, with an epsilon for each environment."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf
from tf_agents.policies import tf_policy
from tf_agents.trajectories import policy_step

from tfdrl.agents.actor_critic_policy import network_input
from tfdrl.agents.q_policy import QInfo, epsilon_greedy


class RecurrentQState(NamedTuple):
    """State of the policy between two steps.

    network      the network's, nest of [N, ...]
    last_action  <int>[N]
    epsilon      <float32>[N], the probability of a random action; whoever starts an episode's
                 environment sets it, and it stays
    """

    network: Any
    last_action: Any
    epsilon: Any


class RecurrentQPolicy(tf_policy.TFPolicy):
    """Acts greedily by a recurrent Q-network, or at random with each environment's epsilon.

    Its network sees `ActorCriticInput`: observation, last action, last reward (Kapturowski 2019,
    section 2.3). Its `info` is a `QInfo`, of which initial priorities are made.

    Args:
      time_step_spec, action_spec: of the environment, without batch dimension.
      network: see networks/recurrent_q_networks.py.
      greedy: whether it never acts at random and reports nothing.
      seed: of the random actions. The generator is a checkpointable attribute.
      epsilon: <float>[N] of the initial state; None for zeros.
      last_reward_clip: of the reward that the network is told; None for none.
      splitter: gives (observation, mask), of a masked network; see `masked_network.mask_alone`.
    """

    def __init__(
        self,
        time_step_spec,
        action_spec,
        network,
        greedy: bool,
        seed: int = 0,
        epsilon=None,
        last_reward_clip: float | None = None,
        splitter=None,
    ):
        state_spec = RecurrentQState(
            network.state_spec, action_spec, tf.TensorSpec([], tf.float32, "epsilon")
        )
        info_spec = QInfo(*(tf.TensorSpec([], tf.float32, name) for name in QInfo._fields))
        super().__init__(
            time_step_spec,
            action_spec,
            policy_state_spec=state_spec,
            info_spec=() if greedy else info_spec,
            observation_and_action_constraint_splitter=splitter,
            automatic_state_reset=False,  # the network resets its own state at FIRST
        )
        self._network, self._greedy, self._epsilon = network, greedy, epsilon
        self._last_reward_clip = last_reward_clip
        self.generator = tf.random.Generator.from_seed(seed)

    def _variables(self):
        return self._network.variables

    def _get_initial_state(self, batch_size):
        state = super()._get_initial_state(batch_size)
        if self._epsilon is None:
            return state
        return state._replace(epsilon=tf.constant(self._epsilon, tf.float32, [batch_size]))

    def _action(self, time_step, policy_state, seed):
        del seed
        observation = network_input(
            time_step.observation,
            time_step.step_type,
            policy_state.last_action,
            time_step.reward,
            self.action_spec,
            self._last_reward_clip,
        )
        q, network_state = self._network(
            observation, step_type=time_step.step_type, network_state=policy_state.network
        )
        splitter = self.observation_and_action_constraint_splitter
        mask = splitter(time_step.observation)[1] if splitter else None
        info = ()
        if self._greedy:
            action = tf.argmax(q, axis=-1, output_type=tf.int32)
        else:
            action = epsilon_greedy(q, policy_state.epsilon, self.generator, mask)
            info = QInfo(tf.gather(q, action, batch_dims=1), tf.reduce_max(q, axis=-1))
        action = tf.cast(action, self.action_spec.dtype)
        state = RecurrentQState(network_state, action, policy_state.epsilon)
        return policy_step.PolicyStep(action, state, info)
