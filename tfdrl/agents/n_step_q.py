"""Q-learning and Sarsa on unrolls, without replay: the agent of A3C's value-based siblings."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import gin
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import StepType

from tfdrl.agents.gradient_step import apply_gradients
from tfdrl.agents.masked_network import mask_alone, masked
from tfdrl.agents.q_policy import EpsilonGreedyQPolicy
from tfdrl.errors import ConfigurationError
from tfdrl.networks.q_networks import num_actions
from tfdrl.ops import q_learning, recurrent_q_learning

_LOSSES = {"half_squared": q_learning.half_squared, "huber": q_learning.huber}
_ALGORITHMS = ("q_learning", "sarsa")
_REDUCTIONS = ("sum", "mean")
_COLLECT_EPSILON = 0.1  # of `collect_policy` alone; an actor brings its own to `actor_policy`


class NStepQInfo(NamedTuple):
    """What a learner step showed, <float32>[] each.

    `td_error` is the mean of |delta|, `q` the mean value of the actions that were taken.
    """

    td_error: tf.Tensor
    q: tf.Tensor
    gradient_norm: tf.Tensor


@gin.configurable
class NStepQAgent(tf_agent.TFAgent):
    """Asynchronous one-step and n-step Q-learning, and Sarsa (Mnih 2016, section 4).

    y_t = r_t + gamma r_{t+1} + ... + gamma^n v_{t+n}, with v = max_a Q(s, a; theta^-) of the
    target network (Q-learning; algorithms 1 and S2), or v = Q(s, a; theta^-) of the action a that
    was taken (Sarsa). It trains on trajectories [B, T+1]: T transitions and, at index T, the step
    that the last of them led to, whose action and reward are not used. Sarsa trains on the first
    T-1 transitions: the last gives no more than its action, and A3C makes it the first of the
    next rollout. Steps of step_type LAST are no transitions of the task and are masked; a
    truncated episode is bootstrapped from the value of its last observation, by Sarsa of the
    action that the policy chose there and the environment ignored.

    Args:
      time_step_spec, action_spec: of the environment, without batch dimension.
      network: `network(observation_spec, action_spec)`, feed-forward, called twice: online and
        target; see networks/q_networks.py.
      optimizer: a Keras optimizer; None where parameter servers apply the gradients: `loss` then
        works, `train` does not.
      gamma: discount factor of one step.
      algorithm: "q_learning" or "sarsa".
      n_step: most steps of a return; None for all to the end of the unroll or of the episode
        (algorithm S2); 1 is one-step Q-learning (algorithm 1), or one-step Sarsa.
      double: select the bootstrap action by the online network; the paper does not, and Sarsa
        has none to select.
      loss: "half_squared" (the paper, but for the 1/2) or "huber".
      reduction: "sum" over B and T (the paper) or "mean": learning rates of one do not fit the
        other.
      target_update_period_steps: own learner steps between hard copies to the target network;
        None for none but `initialize`'s, where the architecture counts for all workers.
      gradient_clip_norm: global norm to clip to; None for none.
      observation_and_action_constraint_splitter: takes the mask of allowed actions out of an
        observation, `splitter(observation) -> (rest, mask <int or bool>[A])`; networks see the
        rest. See docs/action_masks.md.
      train_step_counter: counts learner steps.

    Raises:
      ConfigurationError: continuous actions, an unknown or impossible setting, a network that is
        recurrent or whose output is not one value for each action, or training without an
        optimizer.
    """

    def __init__(
        self,
        time_step_spec,
        action_spec,
        network: Callable = gin.REQUIRED,
        optimizer=None,
        gamma: float = 0.99,
        algorithm: str = "q_learning",
        n_step: int | None = None,
        double: bool = False,
        loss: str = "half_squared",
        reduction: str = "sum",
        target_update_period_steps: int | None = None,
        gradient_clip_norm: float | None = 40.0,
        observation_and_action_constraint_splitter: Callable | None = None,
        train_step_counter: tf.Variable | None = None,
        name: str = "NStepQAgent",
    ):
        actions = num_actions(action_spec)
        _check_choice("algorithm", algorithm, _ALGORITHMS)
        _check_choice("loss", loss, _LOSSES)
        _check_choice("reduction", reduction, _REDUCTIONS)
        _check_count("n_step", n_step, "no limit")
        _check_count("target_update_period_steps", target_update_period_steps, "no copies")
        if double and algorithm == "sarsa":
            raise ConfigurationError(
                "NStepQAgent.double = True with algorithm = 'sarsa': Sarsa bootstraps from the "
                "action that was taken and selects none; set double = False"
            )
        splitter = observation_and_action_constraint_splitter
        self._splitter = mask_alone(splitter)
        network = masked(network, splitter, "NStepQAgent")
        self._network, self._target = (
            network(time_step_spec.observation, action_spec) for _ in range(2)
        )
        _check_networks(self._network, self._target, actions)
        self._optimizer, self._gamma, self._n_step = optimizer, gamma, n_step
        self._is_sarsa = algorithm == "sarsa"
        self._double, self._element_loss, self._reduction = double, _LOSSES[loss], reduction
        self._target_update_period_steps = target_update_period_steps
        self._gradient_clip_norm = gradient_clip_norm
        specs = (time_step_spec, action_spec, self._network)
        super().__init__(
            time_step_spec,
            action_spec,
            EpsilonGreedyQPolicy(*specs, epsilon=0.0, splitter=self._splitter),
            EpsilonGreedyQPolicy(*specs, epsilon=_COLLECT_EPSILON, splitter=self._splitter),
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
    def gradient_clip_norm(self) -> float | None:
        """Global norm that gradients are clipped to; None for none."""
        return self._gradient_clip_norm

    @property
    def lookahead_steps(self) -> int:
        """Transitions at an unroll's end of which the loss takes no more than the action."""
        return int(self._is_sarsa)

    def actor_policy(self, epsilon, seed: int) -> EpsilonGreedyQPolicy:
        """An epsilon-greedy policy with random numbers of its own."""
        specs = (self.time_step_spec, self.action_spec)
        return EpsilonGreedyQPolicy(*specs, self._network, epsilon, seed, self._splitter)

    def _initialize(self):
        for target, variable in zip(self._target.variables, self._network.variables):
            target.assign(variable)

    def _train(self, experience, weights=None):
        if self._optimizer is None:
            raise ConfigurationError(
                "NStepQAgent.optimizer = None, so `train` cannot update the network; set an "
                "optimizer, or take gradients of `loss` to the parameter servers"
            )
        variables = self._network.trainable_weights
        with tf.GradientTape() as tape:
            info = self._loss(experience, weights, training=True)
        gradients = tape.gradient(info.loss, variables)
        loss, norm = apply_gradients(
            self._optimizer, gradients, variables, info.loss, self._gradient_clip_norm
        )
        self.train_step_counter.assign_add(1)
        if self._target_update_period_steps is not None:
            is_due = tf.equal(self.train_step_counter % self._target_update_period_steps, 0)
            for target, variable in zip(self._target.variables, self._network.variables):
                target.assign(tf.where(is_due, variable, target))
        return tf_agent.LossInfo(loss, info.extra._replace(gradient_norm=norm))

    def _loss(self, experience, weights=None, training=False):
        """The loss of this replica's unrolls.

        Args:
          experience: Trajectory of [B, T+1, ...]; T is static.
          weights: <float32>[B] of the unrolls, or None.
          training: passed to the online network.
        """
        if self._is_sarsa:  # index T then has an action, too
            experience = _without_last(experience)
        q = _values(self._network, experience, training)
        q_target = _values(self._target, experience, training=False)
        action, reward = _steps(experience.action), _steps(experience.reward)
        taken = tf.gather(q[:-1], tf.cast(action, tf.int32), batch_dims=2)
        if self._is_sarsa:
            next_action = tf.cast(tf.transpose(experience.action[:, 1:]), tf.int32)
        else:
            selector = q[1:] if self._double else q_target[1:]
            next_action = tf.argmax(selector, axis=-1, output_type=tf.int32)
        td_error = recurrent_q_learning.td_errors_of_values(
            taken,
            reward,
            self._gamma * _steps(experience.discount),
            tf.gather(q_target[1:], next_action, batch_dims=2),
            n=self._n_step or reward.shape[0],
            is_end=tf.transpose(experience.step_type[:, 1:] == StepType.LAST),
            rescaling_epsilon=None,
        )
        is_last = _steps(experience.step_type) == StepType.LAST
        td_error = tf.where(is_last, 0.0, td_error)
        td_loss = self._element_loss(td_error)
        if weights is not None:
            td_loss *= weights
        steps = tf.maximum(tf.reduce_sum(tf.cast(~is_last, tf.float32)), 1.0)
        info = NStepQInfo(
            td_error=tf.reduce_sum(tf.abs(td_error)) / steps,
            q=tf.reduce_sum(tf.where(is_last, 0.0, taken)) / steps,
            gradient_norm=tf.zeros([]),
        )
        return tf_agent.LossInfo(self._total(td_loss), info)

    def _total(self, td_loss: tf.Tensor) -> tf.Tensor:
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        loss = tf.reduce_sum(td_loss)
        if self._reduction == "mean":  # over all B x T steps of all replicas, as VTraceAgent's
            loss /= replicas * tf.size(td_loss, tf.float32)
        if self._network.losses:
            loss += tf.add_n(self._network.losses) / replicas
        return loss


def _without_last(experience):
    if experience.step_type.shape[1] < 3:
        raise ConfigurationError(
            "NStepQAgent.algorithm = 'sarsa' needs unrolls of 2 transitions or more: the last of "
            "them gives the action that follows the others"
        )
    return tf.nest.map_structure(lambda leaf: leaf[:, :-1], experience)


def _steps(tensor: tf.Tensor) -> tf.Tensor:
    """The T transitions of [B, T+1], time-major: [T, B]."""
    return tf.transpose(tensor[:, :-1])


def _values(network, experience, training: bool) -> tf.Tensor:
    """Q of all steps, time-major: <float32>[T+1, B, A]. The network sees a batch of B (T+1)."""
    flat = tf.nest.map_structure(
        lambda leaf: tf.reshape(leaf, tf.concat([[-1], tf.shape(leaf)[2:]], axis=0)),
        (experience.observation, experience.step_type),
    )
    q, _ = network(flat[0], step_type=flat[1], training=training)
    batch = tf.shape(experience.step_type)[0]
    q = tf.reshape(q, [batch, experience.step_type.shape[1], q.shape[-1]])
    return tf.transpose(q, [1, 0, 2])


def _check_networks(network, target, actions: int) -> None:
    if network.state_spec:
        raise ConfigurationError(
            f"NStepQAgent.network = {network.name} is recurrent, but the agent's unrolls start "
            "without a state; use a feed-forward Q-network, or R2D2Agent"
        )
    for net in (network, target):
        net.create_variables()
    if {id(variable) for variable in network.variables} & {id(v) for v in target.variables}:
        raise ConfigurationError(
            f"NStepQAgent.network: the two networks {network.name} share variables, but the "
            "target must stay when the online one learns; make new layers in each call"
        )
    observation = tensor_spec.zero_spec_nest(network.input_tensor_spec, outer_dims=[2])
    q, _ = network(observation, step_type=tf.fill([2], StepType.FIRST))
    if q.shape.as_list() != [2, actions]:
        raise ConfigurationError(
            f"NStepQAgent.network gives values of shape {q.shape.as_list()} for 2 steps; "
            f"{[2, actions]}, one for each action, is needed"
        )


def _check_choice(name: str, value: str, choices) -> None:
    if value not in choices:
        raise ConfigurationError(
            f"NStepQAgent.{name} = {value!r} is unknown; use one of {', '.join(choices)}"
        )


def _check_count(name: str, value: int | None, without: str) -> None:
    if value is not None and value < 1:
        raise ConfigurationError(
            f"NStepQAgent.{name} = {value} must be at least 1, or None for {without}"
        )
