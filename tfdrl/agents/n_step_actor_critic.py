"""Advantage actor-critic with n-step returns: the agent of A3C and of A2C."""

from __future__ import annotations

from collections.abc import Callable

import gin
import tensorflow as tf

from tfdrl.agents.v_trace import VTraceAgent
from tfdrl.errors import ConfigurationError


@gin.configurable
class NStepActorCriticAgent(VTraceAgent):
    """Advantage actor-critic (Mnih 2016, section 4 and algorithm S3) on unrolls of T steps.

    The return of each step is of what follows it in the unroll, up to its end or the episode's,
    and of the value of the state after that: n is T for the first step and 1 for the last. It
    trains on `VTraceAgent`'s trajectories [B, T+1] as if the policy that learns had acted; the
    behaviour's parameters in their policy_info only show, as `log_rho`, how far that is so.

    The paper's value loss has no factor 1/2 and leaves the weight to the learning rate; here it
    is value_cost 1/2 (R - V)^2. Its gradients are not clipped; here they are, as is common.

    Args:
      time_step_spec, action_spec: of the environment, without batch dimension.
      network: `network(input_spec, action_spec)`, see networks/actor_critic_networks.py.
      optimizer: a Keras optimizer; None where parameter servers apply the gradients: `loss` then
        works, `train` does not.
      gamma: discount factor of one step.
      value_cost: of the value loss, which has a factor 1/2 of its own.
      entropy_cost: of the entropy bonus (beta in the paper).
      reduction: "sum" over B and T (the paper) or "mean": learning rates of one do not fit the
        other.
      reward_clipping, reward_scale_factor, last_action_and_reward, last_reward_clip: see
        `VTraceAgent`.
      gradient_clip_norm: global norm to clip to; None for none.
      policy_seed: of `collect_policy`; an actor makes a policy of its own by `actor_policy`.
      observation_and_action_constraint_splitter: takes the mask of allowed actions out of an
        observation, `splitter(observation) -> (rest, mask <int or bool>[A])`; networks see the
        rest. See docs/action_masks.md.
      train_step_counter: counts learner steps.

    Raises:
      ConfigurationError: an unknown or impossible setting, a network whose distribution or value
        does not fit the specs, or training without an optimizer.
    """

    def __init__(
        self,
        time_step_spec,
        action_spec,
        network: Callable = gin.REQUIRED,
        optimizer=None,
        gamma: float = 0.99,
        value_cost: float = 0.5,
        entropy_cost: float = 0.01,
        reduction: str = "sum",
        reward_clipping: str = "none",
        reward_scale_factor: float = 1.0,
        last_action_and_reward: bool = False,
        last_reward_clip: float | None = 1.0,
        gradient_clip_norm: float | None = 40.0,
        policy_seed: int = 0,
        observation_and_action_constraint_splitter: Callable | None = None,
        train_step_counter: tf.Variable | None = None,
        name: str = "NStepActorCriticAgent",
    ):
        try:
            # Every setting is passed, or gin would take VTraceAgent's where it has one.
            super().__init__(
                time_step_spec,
                action_spec,
                network=network,
                optimizer=optimizer,
                gamma=gamma,
                correction="none",
                rho_bar=1.0,
                c_bar=1.0,
                lambda_=1.0,
                pg_rho_bar=1.0,
                reduction=reduction,
                baseline_cost=value_cost,
                entropy_cost=entropy_cost,
                target_entropy=None,
                entropy_cost_adjustment_speed=10.0,
                kl_cost=0.0,
                reward_clipping=reward_clipping,
                reward_scale_factor=reward_scale_factor,
                last_action_and_reward=last_action_and_reward,
                last_reward_clip=last_reward_clip,
                gradient_clip_norm=gradient_clip_norm,
                policy_seed=policy_seed,
                observation_and_action_constraint_splitter=(
                    observation_and_action_constraint_splitter
                ),
                train_step_counter=train_step_counter,
                name=name,
            )
        except ConfigurationError as error:  # whose settings these are
            text = str(error).replace("VTraceAgent.", "NStepActorCriticAgent.")
            raise ConfigurationError(text) from error

    def _train(self, experience, weights=None, policy_state=None, last_reward=None):
        if self._optimizer is None:
            raise ConfigurationError(
                "NStepActorCriticAgent.optimizer = None, so `train` cannot update the network; "
                "set an optimizer, or take gradients of `loss` to the parameter servers"
            )
        return super()._train(experience, weights, policy_state, last_reward)
