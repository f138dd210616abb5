"""Actor-critic on unrolls with V-trace or one of its siblings: the agent of IMPALA."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import gin
import numpy as np
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.trajectories import StepType

from tfdrl.agents import actor_critic_policy as acp
from tfdrl.agents.gradient_step import apply_gradients
from tfdrl.agents.masked_network import mask_alone, masked
from tfdrl.agents.v_trace_checks import check_choice, check_clips, parameter_specs
from tfdrl.errors import ConfigurationError
from tfdrl.networks import actor_critic_networks
from tfdrl.ops import actor_critic, rewards

_REDUCTIONS = ("sum", "mean")
_ROUNDING = 1e-4


class VTraceInfo(NamedTuple):
    """What a learner step showed, <float32>[] each; losses as they enter the total.

    `log_rho` is the mean of |log pi/mu|, `clipped_rhos` the share of ratios above rho-bar:
    0 on-policy, both grow with policy lag.
    """

    policy_loss: tf.Tensor
    value_loss: tf.Tensor
    entropy: tf.Tensor
    log_rho: tf.Tensor
    clipped_rhos: tf.Tensor
    gradient_norm: tf.Tensor


@gin.configurable
class VTraceAgent(tf_agent.TFAgent):
    """V-trace actor-critic (Espeholt 2018, sections 4.1 and 4.2) on unrolls of T steps.

    It trains on trajectories [B, T+1]: T transitions and, at index T, the step that the last of
    them led to, whose action, reward and policy_info are not used. Steps of step_type LAST are
    no transitions of the task (their action was ignored) and are masked; a truncated episode is
    bootstrapped from the value of its last observation.

    Args:
      time_step_spec, action_spec: of the environment, without batch dimension.
      network: `network(input_spec, action_spec)`, see networks/actor_critic_networks.py.
      optimizer: a Keras optimizer.
      gamma: discount factor of one step.
      correction: of the policy lag (table 2): "vtrace", "one_step_is", "epsilon" or "none".
      rho_bar: V-trace's clip of the ratio that decides what is learnt; None for none.
      c_bar: V-trace's clip of the ratios that form the trace; at most rho_bar.
      lambda_: factor of c.
      pg_rho_bar: clip of the ratio in the policy gradient.
      reduction: "sum" over B and T (the paper) or "mean" (SEED RL): learning rates of one do not
        fit the other.
      baseline_cost: of the value loss, which has a factor 1/2 of its own.
      entropy_cost: of the entropy bonus.
      reward_clipping: "none", "abs_one" ([-1, 1]), "soft_asymmetric" (the release's) or
        "asymmetric_paper" (figure D.1); on top of what the environment clips.
      reward_scale_factor: of rewards in the loss, before they are clipped. Rewards of which the
        values stay near 1 keep the value loss from drowning the policy's.
      last_action_and_reward: give them to the network, as `ActorCriticInput`.
      last_reward_clip: of the reward that it is told; 1 as in IMPALA's and SEED RL's releases,
        None for none.
      gradient_clip_norm: global norm to clip to; None for none.
      policy_seed: of `collect_policy`; an actor makes a policy of its own by `actor_policy`.
      observation_and_action_constraint_splitter: takes the mask of allowed actions out of an
        observation, `splitter(observation) -> (rest, mask <int or bool>[A])`; networks see the
        rest. See docs/action_masks.md.
      train_step_counter: counts learner steps.

    Raises:
      ConfigurationError: an unknown or impossible setting, or a network whose distribution or
        value does not fit the specs.
    """

    def __init__(
        self,
        time_step_spec,
        action_spec,
        network: Callable = gin.REQUIRED,
        optimizer=gin.REQUIRED,
        gamma: float = 0.99,
        correction: str = "vtrace",
        rho_bar: float | None = 1.0,
        c_bar: float | None = 1.0,
        lambda_: float = 1.0,
        pg_rho_bar: float | None = 1.0,
        reduction: str = "sum",
        baseline_cost: float = 0.5,
        entropy_cost: float = 0.01,
        reward_clipping: str = "none",
        reward_scale_factor: float = 1.0,
        last_action_and_reward: bool = False,
        last_reward_clip: float | None = 1.0,
        gradient_clip_norm: float | None = 40.0,
        policy_seed: int = 0,
        observation_and_action_constraint_splitter: Callable | None = None,
        train_step_counter: tf.Variable | None = None,
        name: str = "VTraceAgent",
    ):
        check_choice("correction", correction, actor_critic.CORRECTIONS)
        check_choice("reduction", reduction, _REDUCTIONS)
        check_choice("reward_clipping", reward_clipping, rewards.REWARD_CLIPPINGS)
        check_clips(rho_bar, c_bar, pg_rho_bar, lambda_)
        if not reward_scale_factor > 0:
            raise ConfigurationError(
                f"VTraceAgent.reward_scale_factor = {reward_scale_factor} must be positive"
            )
        splitter = observation_and_action_constraint_splitter
        self._splitter = mask_alone(splitter)
        self._network = masked(network, splitter, "VTraceAgent")(
            acp.input_spec(time_step_spec.observation, action_spec, last_action_and_reward),
            action_spec,
        )
        self._network.create_variables()
        actor_critic_networks.check_distribution(self._network, action_spec)
        self._optimizer = optimizer
        self._gamma = gamma
        self._corrections = {
            "correction": correction,
            "rho_bar": rho_bar,
            "c_bar": c_bar,
            "lambda_": lambda_,
            "pg_rho_bar": pg_rho_bar,
        }
        self._reduction = reduction
        self._baseline_cost, self._entropy_cost = baseline_cost, entropy_cost
        self._reward_clipping, self._reward_scale = reward_clipping, reward_scale_factor
        self._last_action_and_reward = last_action_and_reward
        self._last_reward_clip = last_reward_clip
        self._gradient_clip_norm = gradient_clip_norm
        self._info_spec = parameter_specs(self._network, action_spec)
        specs = time_step_spec, action_spec
        super().__init__(
            *specs,
            self._make_policy(*specs, greedy=True, seed=policy_seed),
            self._make_policy(*specs, greedy=False, seed=policy_seed),
            train_sequence_length=None,
            train_step_counter=train_step_counter,
        )
        self._name = name
        if hasattr(optimizer, "build"):  # slots must exist before a checkpoint is restored
            optimizer.build(self._network.trainable_weights)

    @property
    def network(self) -> tf.Module:
        """Policy and value."""
        return self._network

    @property
    def gamma(self) -> float:
        """Discount factor of one step."""
        return self._gamma

    @property
    def gradient_clip_norm(self) -> float | None:
        """Global norm that gradients are clipped to; None for none."""
        return self._gradient_clip_norm

    def actor_policy(self, epsilon, seed: int) -> acp.ActorCriticPolicy:
        """A sampling policy with random numbers of its own; `epsilon` is for Q-learners."""
        del epsilon
        return self._make_policy(self.time_step_spec, self.action_spec, greedy=False, seed=seed)

    def _make_policy(self, time_step_spec, action_spec, greedy: bool, seed: int):
        return acp.ActorCriticPolicy(
            time_step_spec,
            action_spec,
            self._network,
            info_spec=() if greedy else self._info_spec,
            last_action_and_reward=self._last_action_and_reward,
            greedy=greedy,
            seed=seed,
            last_reward_clip=self._last_reward_clip,
            splitter=self._splitter,
        )

    def _train(self, experience, weights=None, policy_state=None, last_reward=None):
        variables = self._network.trainable_weights
        with tf.GradientTape() as tape:
            info = self._loss(experience, weights, True, policy_state, last_reward)
        gradients = tape.gradient(info.loss, variables)
        loss, norm = apply_gradients(
            self._optimizer, gradients, variables, info.loss, self._gradient_clip_norm
        )
        self.train_step_counter.assign_add(1)
        return tf_agent.LossInfo(loss, info.extra._replace(gradient_norm=norm))

    def _loss(self, experience, weights=None, training=False, policy_state=None, last_reward=None):
        """The loss of this replica's unrolls.

        Args:
          experience: Trajectory of [B, T+1, ...]; policy_info has the behaviour's parameters.
          weights: <float32>[B] of the unrolls, or None.
          training: passed to the network.
          policy_state: nest of [B, ...], before index 0; None for the initial one.
          last_reward: <float32>[B], the reward that led to index 0; None for zero.
        """
        observation, network_state = self._network_input(experience, policy_state, last_reward)
        (pi, value), _ = self._network(
            observation,
            step_type=experience.step_type,
            network_state=network_state,
            training=training,
        )
        mu = acp.with_parameters(pi, experience.policy_info)
        log_prob = _steps(pi.log_prob(experience.action))
        behaviour_log_prob = _steps(mu.log_prob(experience.action))
        value = tf.transpose(value)  # [T+1, B]
        reward = self._reward_scale * _steps(experience.reward)
        reward = rewards.clip_rewards(reward, self._reward_clipping)
        next_is_last = experience.step_type[:, 1:] == StepType.LAST
        losses = actor_critic.actor_critic_losses(
            log_prob,
            behaviour_log_prob,
            self._gamma * _steps(experience.discount),
            reward,
            values=value[:-1],
            next_values=value[1:],
            is_end=tf.transpose(next_is_last),
            **self._corrections,
        )
        mask = tf.cast(_steps(experience.step_type) != StepType.LAST, tf.float32)
        if weights is not None:
            mask *= weights
        entropy = self._entropy(pi, log_prob)
        log_rho = log_prob - behaviour_log_prob
        return self._total(losses, entropy, tf.stop_gradient(log_rho), mask)

    def _network_input(self, experience, policy_state, last_reward):
        batch = tf.shape(experience.step_type)[0]
        if policy_state is None:
            policy_state = self.collect_policy.get_initial_state(batch)
        else:  # tf.data makes tuples of the lists in which Keras' cells keep their states
            spec = self.collect_policy.policy_state_spec
            policy_state = tf.nest.pack_sequence_as(spec, tf.nest.flatten(policy_state))
        if not self._last_action_and_reward:
            return experience.observation, policy_state
        if last_reward is None:
            last_reward = tf.zeros([batch])
        last_action = tf.concat([policy_state.last_action[:, None], experience.action[:, :-1]], 1)
        last_rewards = tf.concat([last_reward[:, None], experience.reward[:, :-1]], axis=1)
        observation = acp.network_input(
            experience.observation,
            experience.step_type,
            last_action,
            last_rewards,
            self.action_spec,
            self._last_reward_clip,
        )
        return observation, policy_state.network

    def _entropy(self, pi, log_prob):
        try:
            return _steps(pi.entropy())
        except NotImplementedError:
            if self._entropy_cost:
                raise ConfigurationError(
                    f"VTraceAgent.entropy_cost = {self._entropy_cost}, but the entropy of "
                    f"{type(pi).__name__} is not known in closed form; set it to 0"
                ) from None
            return tf.zeros_like(log_prob)

    def _total(self, losses, entropy, log_rho, mask) -> tf_agent.LossInfo:
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        # A mean is over all B x T steps of all replicas, as in SEED RL: masked ones count as 0.
        scale = 1.0 if self._reduction == "sum" else 1.0 / (replicas * tf.size(mask, tf.float32))
        policy_loss = scale * tf.reduce_sum(losses.policy * mask)
        value_loss = scale * self._baseline_cost * tf.reduce_sum(losses.value * mask)
        bonus = scale * self._entropy_cost * tf.reduce_sum(entropy * mask)
        loss = policy_loss + value_loss - bonus
        if self._network.losses:
            loss += tf.add_n(self._network.losses) / replicas
        steps = tf.maximum(tf.reduce_sum(mask), 1.0)
        rho_bar = self._corrections["rho_bar"]
        # On-policy ratios are 1 but for rounding, and 1 is the usual rho_bar.
        limit = np.inf if rho_bar is None else np.log(rho_bar) + _ROUNDING
        above = tf.cast(log_rho > limit, tf.float32)
        info = VTraceInfo(
            policy_loss=policy_loss,
            value_loss=value_loss,
            entropy=tf.reduce_sum(entropy * mask) / steps,
            log_rho=tf.reduce_sum(tf.abs(log_rho) * mask) / steps,
            clipped_rhos=tf.reduce_sum(above * mask) / steps,
            gradient_norm=tf.zeros([]),
        )
        return tf_agent.LossInfo(loss, info)


def _steps(tensor: tf.Tensor) -> tf.Tensor:
    """The T transitions of [B, T+1], time-major: [T, B]."""
    return tf.transpose(tensor[:, :-1])
