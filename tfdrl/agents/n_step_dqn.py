"""DQN on n-step transitions with importance weights: the agent of DQN and of Ape-X DQN."""

from __future__ import annotations

from collections.abc import Callable

import gin
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.agents.dqn import dqn_agent

from tfdrl.agents.gradient_step import apply_gradients
from tfdrl.agents.masked_network import mask_alone, masked
from tfdrl.agents.q_policy import EpsilonGreedyQPolicy
from tfdrl.errors import ConfigurationError
from tfdrl.networks.q_networks import num_actions
from tfdrl.ops import q_learning


@gin.configurable
class NStepDqnAgent(dqn_agent.DqnAgent):
    """(Double) DQN (Mnih 2015; van Hasselt 2016) on n-step transitions (Ape-X, section 3).

    It trains on trajectories [B, 2] that hold s_t and s_{t+m}, with the n-step return as the
    reward and gamma^(m-1) as the discount; the last factor of gamma is applied here. Unlike its
    base class it clips gradients by their global norm after summing over replicas, replaces
    non-finite gradients by zero (the loss is then NaN: the learner counts it), and its td_error
    is the error before importance weighting, which is what priorities are made of.

    Args:
      time_step_spec, action_spec: of the environment, without batch dimension.
      network: `network(observation_spec, action_spec)`, called twice: online and target.
      optimizer: a Keras optimizer.
      gamma: discount factor of one step.
      double: select the bootstrap action by the online network.
      loss: "huber" (Mnih 2015) or "half_squared" (Ape-X).
      target_update_period_steps: learner steps between hard copies to the target network.
      gradient_clip_norm: global norm to clip to; None for none.
      observation_and_action_constraint_splitter: takes the mask of allowed actions out of an
        observation, `splitter(observation) -> (rest, mask <int or bool>[A])`; networks see the
        rest. See docs/action_masks.md.
      train_step_counter: counts learner steps.

    Raises:
      ConfigurationError: continuous actions, an unknown loss, or a network whose output is not
        one value for each action.
    """

    def __init__(
        self,
        time_step_spec,
        action_spec,
        network: Callable = gin.REQUIRED,
        optimizer=gin.REQUIRED,
        gamma: float = 0.99,
        double: bool = True,
        loss: str = "half_squared",
        target_update_period_steps: int = 2500,
        gradient_clip_norm: float | None = 40.0,
        observation_and_action_constraint_splitter: Callable | None = None,
        train_step_counter: tf.Variable | None = None,
        name: str = "NStepDqnAgent",
    ):
        num_actions(action_spec)
        losses = {"huber": q_learning.huber, "half_squared": q_learning.half_squared}
        if loss not in losses:
            raise ConfigurationError(
                f"NStepDqnAgent.loss = {loss!r} is unknown; use one of {sorted(losses)}"
            )
        splitter = observation_and_action_constraint_splitter
        network = masked(network, splitter, "NStepDqnAgent")
        try:
            super().__init__(
                time_step_spec,
                action_spec,
                q_network=network(time_step_spec.observation, action_spec),
                target_q_network=network(time_step_spec.observation, action_spec),
                optimizer=optimizer,
                observation_and_action_constraint_splitter=mask_alone(splitter),
                gamma=gamma,
                epsilon_greedy=0.1,
                target_update_period=target_update_period_steps,
                train_step_counter=train_step_counter,
                name=name,
            )
        except (ValueError, TypeError) as error:
            raise ConfigurationError(
                f"NStepDqnAgent.network does not fit the environment: {error}"
            ) from error
        self._double = double
        self._element_loss = losses[loss]
        self._gradient_clip_norm = gradient_clip_norm
        if hasattr(optimizer, "build"):  # slots must exist before a checkpoint is restored
            optimizer.build(self._q_network.trainable_weights)

    @property
    def q_network(self) -> tf.Module:
        """That which is trained."""
        return self._q_network

    @property
    def target_q_network(self) -> tf.Module:
        """That whose values of the next step are learnt from."""
        return self._target_q_network

    @property
    def gamma(self) -> float:
        """Discount factor of one step; the n-step returns must be made with the same."""
        return self._gamma

    @property
    def gradient_clip_norm(self) -> float | None:
        """Global norm that gradients are clipped to; None for none."""
        return self._gradient_clip_norm

    def actor_policy(self, epsilon, seed: int) -> EpsilonGreedyQPolicy:
        """An epsilon-greedy policy that reports the Q-values for initial priorities."""
        specs = (self.time_step_spec, self.action_spec)
        splitter = self._observation_and_action_constraint_splitter
        return EpsilonGreedyQPolicy(*specs, self._q_network, epsilon, seed, splitter)

    def _td_errors(self, experience, training):
        time_steps, policy_steps, next_steps = self._as_transition(experience)
        q_tm1, _ = self._q_network(time_steps.observation, training=training)
        q_target, _ = self._target_q_network(next_steps.observation)
        q_selector = self._q_network(next_steps.observation)[0] if self._double else q_target
        td_error = q_learning.td_errors(
            q_tm1,
            policy_steps.action,
            next_steps.reward,
            self._gamma * next_steps.discount,
            q_target,
            q_selector,
        )
        # The step between LAST and FIRST is no transition of the task.
        return tf.where(time_steps.is_last(), 0.0, td_error)

    def _loss(self, experience, weights=None, training=False, **_):
        td_error = self._td_errors(experience, training)
        td_loss = self._element_loss(td_error)
        if weights is not None:
            td_loss *= weights
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        loss = tf.reduce_mean(td_loss) / replicas
        if self._q_network.losses:
            loss += tf.add_n(self._q_network.losses) / replicas
        return tf_agent.LossInfo(loss, dqn_agent.DqnLossInfo(td_loss=td_loss, td_error=td_error))

    def _train(self, experience, weights):
        variables = self._q_network.trainable_weights
        with tf.GradientTape() as tape:
            info = self._loss(experience, weights, training=True)
        loss, _ = apply_gradients(
            self._optimizer,
            tape.gradient(info.loss, variables),
            variables,
            info.loss,
            self._gradient_clip_norm,
        )
        self.train_step_counter.assign_add(1)
        self._update_target()
        return tf_agent.LossInfo(loss, info.extra)
