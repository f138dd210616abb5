"""R2D2 (Kapturowski 2019): double Q-learning over sequences with stored state and burn-in."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import gin
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import StepType

from tfdrl.agents import actor_critic_policy as acp
from tfdrl.agents.gradient_step import apply_gradients
from tfdrl.agents.masked_network import mask_alone, masked
from tfdrl.agents.recurrent_q_policy import RecurrentQPolicy
from tfdrl.errors import ConfigurationError
from tfdrl.networks.q_networks import num_actions
from tfdrl.ops import recurrent_q_learning, value_rescaling

_INITIAL_STATES = ("stored", "zero")


class R2D2Info(NamedTuple):
    """What a learner step showed: `priority` <float32>[B] of the sequences, the rest <float32>[].

    `td_error` is the mean of |delta|, `q` the mean value of the actions that were taken.
    """

    priority: tf.Tensor
    td_error: tf.Tensor
    q: tf.Tensor
    gradient_norm: tf.Tensor


@gin.configurable
class R2D2Agent(tf_agent.TFAgent):
    """Trains on trajectories [B, burn_in_steps + T + 1], which may pass through episode ends.

    Both networks run over the first burn_in_steps from the stored state, without gradient, then
    over the rest, on which they train. At the last index only the observation and the step type
    are used. Steps of step_type LAST are no transitions of the task and are masked; a truncated
    episode is bootstrapped from the value of its last observation.

    Args:
      time_step_spec, action_spec: of the environment, without batch dimension.
      network: `network(input_spec, action_spec)`, called twice (online and target), see
        networks/recurrent_q_networks.py; its input is an `ActorCriticInput`.
      optimizer: a Keras optimizer.
      gamma: discount factor of one step.
      n_step: steps of the returns.
      burn_in_steps: 40 in the paper; 0 for none.
      initial_state: "stored" with the sequence, or "zero", which the paper shows to be worse.
      priority_eta: weight of the largest |TD error| of a sequence against the mean.
      rescaling_epsilon: of the value rescaling h; None for none.
      target_update_period_steps: learner steps between hard copies to the target network.
      gradient_clip_norm: global norm to clip to; None for none.
      last_reward_clip: of the reward that the network is told: [-last_reward_clip,
        last_reward_clip]; None for none: the paper clips no reward (section 2.3).
      observation_and_action_constraint_splitter: takes the mask of allowed actions out of an
        observation, `splitter(observation) -> (rest, mask <int or bool>[A])`; networks see the
        rest. See docs/action_masks.md.
      train_step_counter: counts learner steps.

    Raises:
      ConfigurationError: continuous actions, an impossible setting, or a network whose output is
        not one value for each action.
    """

    def __init__(
        self,
        time_step_spec,
        action_spec,
        network: Callable = gin.REQUIRED,
        optimizer=gin.REQUIRED,
        gamma: float = 0.997,
        n_step: int = 5,
        burn_in_steps: int = 40,
        initial_state: str = "stored",
        priority_eta: float = 0.9,
        rescaling_epsilon: float | None = value_rescaling.EPSILON,
        target_update_period_steps: int = 2500,
        gradient_clip_norm: float | None = 40.0,
        last_reward_clip: float | None = None,
        observation_and_action_constraint_splitter: Callable | None = None,
        train_step_counter: tf.Variable | None = None,
        name: str = "R2D2Agent",
    ):
        actions = num_actions(action_spec)
        if initial_state not in _INITIAL_STATES:
            raise ConfigurationError(
                f"R2D2Agent.initial_state = {initial_state!r} is unknown; use one of "
                f"{', '.join(_INITIAL_STATES)}"
            )
        if n_step < 1 or burn_in_steps < 0 or target_update_period_steps < 1:
            raise ConfigurationError(
                f"R2D2Agent.n_step = {n_step}, burn_in_steps = {burn_in_steps}, "
                f"target_update_period_steps = {target_update_period_steps}: at least 1, 0 and 1"
            )
        splitter = observation_and_action_constraint_splitter
        self._splitter = mask_alone(splitter)
        network = masked(network, splitter, "R2D2Agent")
        input_spec = acp.input_spec(time_step_spec.observation, action_spec, True)
        self._network, self._target = (network(input_spec, action_spec) for _ in range(2))
        for net in (self._network, self._target):
            net.create_variables()
        _check_values(self._network, actions)
        self._optimizer, self._gamma, self._n_step = optimizer, gamma, n_step
        self._burn_in_steps, self._initial_state = burn_in_steps, initial_state
        self._priority_eta, self._rescaling_epsilon = priority_eta, rescaling_epsilon
        self._target_update_period_steps = target_update_period_steps
        self._gradient_clip_norm, self._last_reward_clip = gradient_clip_norm, last_reward_clip
        super().__init__(
            time_step_spec,
            action_spec,
            self._make_policy(time_step_spec, action_spec, greedy=True),
            self._make_policy(time_step_spec, action_spec, greedy=False),
            train_sequence_length=None,
            train_step_counter=train_step_counter,
        )
        self._name = name
        if hasattr(optimizer, "build"):  # slots must exist before a checkpoint is restored
            optimizer.build(self._network.trainable_weights)

    @property
    def network(self) -> tf.Module:
        """That which is trained."""
        return self._network

    @property
    def target_network(self) -> tf.Module:
        """That whose values of later steps are learnt from."""
        return self._target

    @property
    def gamma(self) -> float:
        """Discount factor of one step."""
        return self._gamma

    @property
    def burn_in_steps(self) -> int:
        """Steps at a sequence's beginning that are not trained on."""
        return self._burn_in_steps

    def actor_policy(self, epsilon, seed: int) -> RecurrentQPolicy:
        """An epsilon-greedy policy that reports the values for initial priorities."""
        specs = (self.time_step_spec, self.action_spec)
        return self._make_policy(*specs, greedy=False, seed=seed, epsilon=epsilon)

    def _make_policy(self, time_step_spec, action_spec, **how) -> RecurrentQPolicy:
        return RecurrentQPolicy(
            time_step_spec,
            action_spec,
            self._network,
            last_reward_clip=self._last_reward_clip,
            splitter=self._splitter,
            **how,
        )

    def _initialize(self):
        self._copy_to_target()

    def _copy_to_target(self) -> None:
        for target, variable in zip(self._target.variables, self._network.variables):
            target.assign(variable)

    def _train(self, experience, weights=None, policy_state=None, last_reward=None):
        variables = self._network.trainable_weights
        with tf.GradientTape() as tape:
            info = self._loss(experience, weights, True, policy_state, last_reward)
        gradients = tape.gradient(info.loss, variables)
        loss, norm = apply_gradients(
            self._optimizer, gradients, variables, info.loss, self._gradient_clip_norm
        )
        self.train_step_counter.assign_add(1)
        is_due = tf.equal(self.train_step_counter % self._target_update_period_steps, 0)
        for target, variable in zip(self._target.variables, self._network.variables):
            target.assign(tf.where(is_due, variable, target))
        return tf_agent.LossInfo(loss, info.extra._replace(gradient_norm=norm))

    def _loss(self, experience, weights=None, training=False, policy_state=None, last_reward=None):
        """The loss of this replica's sequences, 1/2 sum_t delta_t^2, weighted, mean over them.

        Args:
          experience: Trajectory of [B, burn_in + T + 1, ...].
          weights: <float32>[B], importance weights, or None.
          training: passed to the network.
          policy_state: `RecurrentQState` of [B, ...] before index 0; None for the initial one.
          last_reward: <float32>[B], the reward that led to index 0; None for zero.
        """
        observation, state = self._network_input(experience, policy_state, last_reward)
        q = self._values(self._network, observation, experience.step_type, state, training)
        q_target = self._values(self._target, observation, experience.step_type, state, False)
        # Time-major transitions of the trained part; index t+1 holds the step that followed t.
        burn_in = self._burn_in_steps
        steps = lambda leaf: tf.transpose(leaf[:, burn_in:-1])  # noqa: E731
        td_error = recurrent_q_learning.td_errors(
            q[:-1],
            steps(experience.action),
            steps(experience.reward),
            self._gamma * steps(experience.discount),
            q_target[1:],
            q[1:],
            self._n_step,
            tf.transpose(experience.step_type[:, burn_in + 1 :] == StepType.LAST),
            self._rescaling_epsilon,
        )
        mask = tf.cast(steps(experience.step_type) != StepType.LAST, tf.float32)
        found = recurrent_q_learning.sequence_loss(td_error, mask, self._priority_eta)
        loss = found.loss if weights is None else found.loss * weights
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        count = tf.maximum(tf.reduce_sum(mask), 1.0)
        taken = tf.gather(q[:-1], tf.cast(steps(experience.action), tf.int32), batch_dims=2)
        info = R2D2Info(
            priority=found.priority,
            td_error=tf.reduce_sum(tf.abs(td_error) * mask) / count,
            q=tf.reduce_sum(taken * mask) / count,
            gradient_norm=tf.zeros([]),
        )
        loss = tf.reduce_mean(loss) / replicas
        if self._network.losses:  # its regularisation
            loss += tf.add_n(self._network.losses) / replicas
        return tf_agent.LossInfo(loss, info)

    def _values(self, network, observation, step_type, state, training):
        """Values of the trained part, <float32>[T+1, B, A]."""
        burn_in = self._burn_in_steps
        if burn_in:
            before = tf.nest.map_structure(lambda leaf: leaf[:, :burn_in], observation)
            _, state = network(before, step_type=step_type[:, :burn_in], network_state=state)
            state = tf.nest.map_structure(tf.stop_gradient, state)
            observation = tf.nest.map_structure(lambda leaf: leaf[:, burn_in:], observation)
        q, _ = network(
            observation,
            step_type=step_type[:, burn_in:],
            network_state=state,
            training=training,
        )
        return tf.transpose(q, [1, 0, 2])

    def _network_input(self, experience, policy_state, last_reward):
        policy_state = acp.training_state(self.collect_policy, policy_state, experience)
        network_state = policy_state.network
        if self._initial_state == "zero":
            network_state = tf.nest.map_structure(tf.zeros_like, network_state)
        last = (policy_state.last_action, last_reward)
        observation = acp.training_input(
            experience, *last, self.action_spec, self._last_reward_clip
        )
        return observation, network_state

    def initial_priorities(self, q_taken, max_q, experience) -> tf.Tensor:
        """Priorities of new sequences by the values that acting saw: <float32>[B].

        The behaviour's values stand for both networks (SEED RL's release does the same, but
        bootstraps by the action that was taken instead of the best one).

        Args:
          q_taken: <float32>[B, L], Q(s_t, a_t), L = burn_in_steps + T.
          max_q: <float32>[B, L+1], max_a Q(s_t, a).
          experience: Trajectory of [B, L+1, ...].
        """
        burn_in = self._burn_in_steps
        steps = lambda leaf: tf.transpose(leaf[:, burn_in:-1])  # noqa: E731
        td_error = recurrent_q_learning.td_errors_of_values(
            tf.transpose(q_taken[:, burn_in:]),
            steps(experience.reward),
            self._gamma * steps(experience.discount),
            tf.transpose(max_q[:, burn_in + 1 :]),
            self._n_step,
            tf.transpose(experience.step_type[:, burn_in + 1 :] == StepType.LAST),
            self._rescaling_epsilon,
        )
        mask = tf.cast(steps(experience.step_type) != StepType.LAST, tf.float32)
        return recurrent_q_learning.sequence_loss(td_error, mask, self._priority_eta).priority


def _check_values(network, actions: int) -> None:
    inputs, state = (
        tensor_spec.zero_spec_nest(spec, outer_dims=[2])
        for spec in (network.input_tensor_spec, network.state_spec)
    )
    q, _ = network(inputs, step_type=tf.fill([2], StepType.FIRST), network_state=state)
    if q.shape.as_list() != [2, actions]:
        raise ConfigurationError(
            f"R2D2Agent.network gives values of shape {q.shape.as_list()} for 2 steps; "
            f"{[2, actions]}, one for each action, is needed"
        )
