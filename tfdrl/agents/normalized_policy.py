"""A policy that sees observations as the running statistics of its agent scale them."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
from tf_agents.policies import tf_policy

from tfdrl.agents.running_statistics import RunningStatistics


class NormalizedPolicy(tf_policy.TFPolicy):
    """Scales what it is given, never the statistics: these are among its variables.

    Args:
      policy: a TFPolicy for scaled observations, whose other attributes it has.
      statistics: of the agent.
    """

    def __init__(self, policy: tf_policy.TFPolicy, statistics: RunningStatistics):
        super().__init__(
            policy.time_step_spec,
            policy.action_spec,
            policy_state_spec=policy.policy_state_spec,
            info_spec=policy.info_spec,
            clip=False,
            automatic_state_reset=False,  # the wrapped policy does what it does
            observation_and_action_constraint_splitter=(
                policy.observation_and_action_constraint_splitter
            ),
        )
        self._wrapped, self._statistics = policy, statistics

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # tf.Module asks for what need not exist
            raise AttributeError(name)
        return getattr(self._wrapped, name)

    def _variables(self):
        return [*self._wrapped.variables(), *self._statistics.variables]

    def _get_initial_state(self, batch_size):
        return self._wrapped.get_initial_state(batch_size)

    def _action(self, time_step, policy_state, seed):
        step = self._wrapped.action(self._scaled(time_step), policy_state, seed)
        return step._replace(info=self._statistics.unscaled_values(step.info))

    def _distribution(self, time_step, policy_state):
        return self._wrapped.distribution(self._scaled(time_step), policy_state)

    def _scaled(self, time_step):
        return time_step._replace(
            observation=self._statistics.scaled_observation(time_step.observation),
            reward=tf.nest.map_structure(self._statistics.scaled_reward, time_step.reward),
        )
