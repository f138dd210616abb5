"""Actor-critic on unrolls with V-trace or one of its siblings: the agent of IMPALA."""

from __future__ import annotations

from collections.abc import Callable

import gin
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.trajectories import StepType

from tfdrl.agents import actor_critic_policy as acp
from tfdrl.agents.entropy_multiplier import EntropyMultiplier
from tfdrl.agents.gradient_step import apply_gradients
from tfdrl.agents.masked_network import mask_alone, masked
from tfdrl.agents.v_trace_checks import check_choice, check_clips, check_factors, parameter_specs
from tfdrl.agents.v_trace_total import TotalLoss
from tfdrl.errors import ConfigurationError
from tfdrl.networks import actor_critic_networks
from tfdrl.ops import actor_critic, rewards

_REDUCTIONS = ("sum", "mean")


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
      entropy_cost: of the entropy bonus; with a target_entropy, where it starts from.
      target_entropy: mean entropy in nats that the cost is trained to hold (SEED RL's release);
        None for a constant cost.
      entropy_cost_adjustment_speed: how fast the cost is trained; see `EntropyMultiplier`.
      kl_cost: of log mu(a) - log pi(a), whose mean over mu's actions is KL(mu | pi); 0 in IMPALA,
        and unless it is set in SEED RL's release.
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
        target_entropy: float | None = None,
        entropy_cost_adjustment_speed: float = 10.0,
        kl_cost: float = 0.0,
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
        check_factors(reward_scale_factor, kl_cost)
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
        self._entropy_cost, self._multiplier = entropy_cost, None
        if target_entropy is not None:
            speed = entropy_cost_adjustment_speed
            self._multiplier = EntropyMultiplier(entropy_cost, target_entropy, speed)
        self._total = TotalLoss(
            reduction, baseline_cost, self._multiplier or entropy_cost, kl_cost, rho_bar
        )
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
            optimizer.build(self._trained())

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

    def _trained(self) -> list[tf.Variable]:
        """The network's variables, then the entropy's multiplier if there is one."""
        multiplier = [] if self._multiplier is None else [self._multiplier.variable]
        return [*self._network.trainable_weights, *multiplier]

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
        variables = self._trained()
        with tf.GradientTape() as tape:
            info = self._loss(experience, weights, True, policy_state, last_reward)
        gradients = tape.gradient(info.loss, variables)
        loss, norm = apply_gradients(
            self._optimizer,
            gradients,
            variables,
            info.loss,
            self._gradient_clip_norm,
            unclipped=0 if self._multiplier is None else 1,
        )
        if self._multiplier is not None:
            self._multiplier.clip()
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
        log_rho = log_prob - tf.stop_gradient(behaviour_log_prob)
        return self._total(losses, entropy, log_rho, mask, self._network.losses)

    def _network_input(self, experience, policy_state, last_reward):
        policy_state = acp.training_state(self.collect_policy, policy_state, experience)
        if not self._last_action_and_reward:
            return experience.observation, policy_state
        last = (policy_state.last_action, last_reward)
        observation = acp.training_input(
            experience, *last, self.action_spec, self._last_reward_clip
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


def _steps(tensor: tf.Tensor) -> tf.Tensor:
    """The T transitions of [B, T+1], time-major: [T, B]."""
    return tf.transpose(tensor[:, :-1])
