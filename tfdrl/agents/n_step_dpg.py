"""Deterministic policy gradients on n-step transitions: the agent of Ape-X DPG."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import gin
import numpy as np
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.policies import actor_policy
from tf_agents.specs import tensor_spec

from tfdrl.agents.gradient_step import apply_gradients
from tfdrl.agents.noisy_policy import NoisyPolicy
from tfdrl.errors import ConfigurationError
from tfdrl.ops import deterministic_policy_gradient, q_learning

_NOISES = ("gaussian", "ornstein_uhlenbeck")


class DpgInfo(NamedTuple):
    """What a learner step showed: `td_error` <float32>[B] before weighting, the rest <float32>[].

    `policy_loss` is the surrogate's value, half the mean square of the clipped dq/da.
    """

    td_error: tf.Tensor
    critic_loss: tf.Tensor
    policy_loss: tf.Tensor
    q: tf.Tensor


@gin.configurable
class NStepDpgAgent(tf_agent.TFAgent):
    """DDPG (Lillicrap 2016) on n-step transitions (Ape-X DPG: Horgan 2018, appendix D).

    It trains on trajectories [B, 2] that hold s_t and s_{t+m}, with the n-step return as the
    reward and gamma^(m-1) as the discount; the last factor of gamma is applied here. With target
    networks (phi-, psi-) the critic learns from

        delta = R + gamma^m q(s_{t+m}, pi(s_{t+m}; phi-); psi-) - q(s_t, a_t; psi)

    by 1/2 delta^2, weighted, and the policy follows dq(s_t, a; psi)/da at a = pi(s_t; phi), each
    element clipped. The two losses share no variable, so their sum is the agent's loss. It is
    this replica's share: gradients are summed over replicas. Non-finite gradients become zero
    (the loss is then NaN: the learner counts it).

    Args:
      time_step_spec, action_spec: of the environment, without batch dimension.
      actor_network: `network(observation_spec, action_spec)`, called twice (online and target);
        its output is the action. `mlp_actor` is one.
      critic_network: `network(observation_spec, action_spec)`, called twice; it takes
        (observation, action) and gives <float32>[B]. `mlp_critic` is one.
      actor_optimizer, critic_optimizer: Keras optimizers, one object each.
      gamma: discount factor of one step.
      action_gradient_clip: bound of each element of dq/da; None for none.
      target_update_period_steps: learner steps between hard copies to the target networks.
      gradient_clip_norm: global norm to clip the critic's and the policy's gradients to, each by
        itself; None for none.
      noise: of the actors: "gaussian" (Ape-X) or "ornstein_uhlenbeck" (Lillicrap 2016).
      noise_damping: theta of "ornstein_uhlenbeck".
      train_step_counter: counts learner steps.

    Raises:
      ConfigurationError: an action that is discrete or has no bounds, an impossible setting, or
        networks that do not fit.
    """

    def __init__(
        self,
        time_step_spec,
        action_spec,
        actor_network: Callable = gin.REQUIRED,
        critic_network: Callable = gin.REQUIRED,
        actor_optimizer=gin.REQUIRED,
        critic_optimizer=gin.REQUIRED,
        gamma: float = 0.99,
        action_gradient_clip: float | None = 1.0,
        target_update_period_steps: int = 100,
        gradient_clip_norm: float | None = None,
        noise: str = "gaussian",
        noise_damping: float = 0.15,
        train_step_counter: tf.Variable | None = None,
        name: str = "NStepDpgAgent",
    ):
        check_action_spec(action_spec, "NStepDpgAgent")
        _check_settings(action_gradient_clip, target_update_period_steps, noise, noise_damping)
        if actor_optimizer is critic_optimizer:
            raise ConfigurationError(
                "NStepDpgAgent.actor_optimizer and critic_optimizer are one object; each needs its "
                "own, such as @actor/adam() and @critic/adam()"
            )
        specs = (time_step_spec.observation, action_spec)
        shape = tf.nest.flatten(action_spec)[0].shape
        self._actor, self._target_actor = (
            _built("actor_network", actor_network, specs[0], specs, shape) for _ in range(2)
        )
        self._critic, self._target_critic = (
            _built("critic_network", critic_network, specs, specs, ()) for _ in range(2)
        )
        self._actor_optimizer, self._critic_optimizer = actor_optimizer, critic_optimizer
        self._gamma, self._action_gradient_clip = gamma, action_gradient_clip
        self._target_update_period_steps = target_update_period_steps
        self._gradient_clip_norm = gradient_clip_norm
        self._noise_damping = None if noise == "gaussian" else noise_damping
        super().__init__(
            time_step_spec,
            action_spec,
            actor_policy.ActorPolicy(time_step_spec, action_spec, self._actor, clip=True),
            NoisyPolicy(time_step_spec, action_spec, self._actor, self._critic, 0.3),
            train_sequence_length=2,
            train_step_counter=train_step_counter,
        )
        self._name = name
        # Slots must exist before a checkpoint is restored.
        actor_optimizer.build(self._actor.trainable_weights)
        critic_optimizer.build(self._critic.trainable_weights)

    @property
    def actor(self) -> tf.Module:
        """The policy's network."""
        return self._actor

    @property
    def critic(self) -> tf.Module:
        """That of Q."""
        return self._critic

    @property
    def target_actor(self) -> tf.Module:
        """That whose action of the next step is valued."""
        return self._target_actor

    @property
    def target_critic(self) -> tf.Module:
        """That whose value of the next step is learnt from."""
        return self._target_critic

    @property
    def gamma(self) -> float:
        """Discount factor of one step; the n-step returns must be made with the same."""
        return self._gamma

    def actor_policy(self, std, seed: int) -> NoisyPolicy:
        """A policy with noise of these standard deviations, in half ranges of the action."""
        specs = (self.time_step_spec, self.action_spec)
        return NoisyPolicy(*specs, self._actor, self._critic, std, self._noise_damping, seed)

    def _initialize(self):
        self._copy_to_targets(True)

    def _copy_to_targets(self, is_due) -> None:
        for online, target in (
            (self._actor, self._target_actor),
            (self._critic, self._target_critic),
        ):
            for to, variable in zip(target.variables, online.variables):
                to.assign(tf.where(is_due, variable, to))

    def _td_errors(self, experience, training):
        observation, next_observation = (
            _at(experience.observation, 0),
            _at(experience.observation, 1),
        )
        action = _at(experience.action, 0)
        q, _ = self._critic((observation, action), training=training)
        bootstrap, _ = self._target_critic(
            (next_observation, self._target_actor(next_observation)[0])
        )
        discount = self._gamma * experience.discount[:, 0]
        target = experience.reward[:, 0] + discount * tf.reshape(bootstrap, [-1])
        td_error = tf.stop_gradient(target) - tf.reshape(q, [-1])
        # The step between LAST and FIRST is no transition of the task.
        return tf.where(experience.is_boundary()[:, 0], 0.0, td_error), q

    def _policy_loss(self, experience, training):
        observation = _at(experience.observation, 0)
        action, _ = self._actor(observation, training=training)
        fixed = tf.nest.map_structure(tf.stop_gradient, action)
        (leaf,) = tf.nest.flatten(fixed)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(leaf)
            q, _ = self._critic((observation, fixed))
        dq_da = tape.gradient(q, leaf)  # each q depends on its own action only
        (action,) = tf.nest.flatten(action)
        return deterministic_policy_gradient.policy_loss(
            action, tf.stop_gradient(dq_da), self._action_gradient_clip
        )

    def _loss(self, experience, weights=None, training=False, **_):
        td_error, q = self._td_errors(experience, training)
        critic_loss = q_learning.half_squared(td_error)
        if weights is not None:
            critic_loss *= weights
        critic_loss = tf.reduce_mean(critic_loss)
        policy_loss = tf.reduce_mean(self._policy_loss(experience, training))
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        info = DpgInfo(td_error, critic_loss, policy_loss, tf.reduce_mean(q))
        loss = critic_loss + policy_loss
        for network in (self._critic, self._actor):
            if network.losses:
                loss += tf.add_n(network.losses)
        return tf_agent.LossInfo(loss / replicas, info)

    def _train(self, experience, weights):
        critic, actor = self._critic.trainable_weights, self._actor.trainable_weights
        with tf.GradientTape() as tape:
            info = self._loss(experience, weights, training=True)
        gradients = tape.gradient(info.loss, [*critic, *actor])
        clip = self._gradient_clip_norm
        loss, _ = apply_gradients(
            self._critic_optimizer, gradients[: len(critic)], critic, info.loss, clip
        )
        loss, _ = apply_gradients(
            self._actor_optimizer, gradients[len(critic) :], actor, loss, clip
        )
        self.train_step_counter.assign_add(1)
        period_steps = self._target_update_period_steps
        self._copy_to_targets(tf.equal(self.train_step_counter % period_steps, 0))
        return tf_agent.LossInfo(loss, info.extra)


def _at(nest, index: int):
    """[B, 2, ...] -> [B, ...]."""
    return tf.nest.map_structure(lambda leaf: leaf[:, index], nest)


def check_action_spec(action_spec, agent: str) -> None:
    """Raises ConfigurationError unless there is one continuous action with finite bounds."""
    flat = tf.nest.flatten(action_spec)
    if len(flat) != 1:
        raise ConfigurationError(f"{agent} needs one action, but the environment has {len(flat)}")
    (spec,) = flat
    if not spec.dtype.is_floating:
        raise ConfigurationError(
            f"{agent} needs a continuous action, but the environment's is {spec.dtype.name} "
            f"{spec.shape.as_list()}: train a discrete action by NStepDqnAgent, an array of them "
            "by VTraceAgent"
        )
    is_bounded = isinstance(spec, tensor_spec.BoundedTensorSpec)
    if not is_bounded or not np.all(np.isfinite([spec.minimum, spec.maximum])):
        raise ConfigurationError(
            f"{agent} needs an action with bounds, but the environment's float action of shape "
            f"{spec.shape.as_list()} has none: wrap it in gymnasium.wrappers.RescaleAction, or "
            "give its action_space finite low and high"
        )


def _check_settings(action_gradient_clip, target_update_period_steps, noise, noise_damping):
    if noise not in _NOISES:
        raise ConfigurationError(
            f"NStepDpgAgent.noise = {noise!r} is unknown; use one of {', '.join(_NOISES)}"
        )
    if not 0.0 < noise_damping <= 1.0:
        raise ConfigurationError(
            f"NStepDpgAgent.noise_damping = {noise_damping} must be above 0 and at most 1"
        )
    if action_gradient_clip is not None and not action_gradient_clip > 0:
        raise ConfigurationError(
            f"NStepDpgAgent.action_gradient_clip = {action_gradient_clip} must be above 0, or None"
        )
    if not target_update_period_steps >= 1:
        raise ConfigurationError(
            f"NStepDpgAgent.target_update_period_steps = {target_update_period_steps} must be 1 or "
            "more"
        )


def _built(argument: str, factory: Callable, inputs, specs, shape):
    """A network of `factory(*specs)` that gives outputs of [2, *shape] for two `inputs`."""
    try:
        network = factory(*specs)
        network.create_variables(inputs)
        output, _ = network(tensor_spec.zero_spec_nest(inputs, outer_dims=[2]))
    except (ValueError, TypeError) as error:
        raise ConfigurationError(
            f"NStepDpgAgent.{argument} does not fit the environment: {error}"
        ) from error
    shapes = [leaf.shape.as_list() for leaf in tf.nest.flatten(output)]
    if shapes != [[2, *shape]]:
        raise ConfigurationError(
            f"NStepDpgAgent.{argument} gives outputs of shape {shapes} for 2 inputs; "
            f"{[2, *shape]} is needed"
        )
    return network
