"""Acting by an actor-critic network, and recording what an off-policy correction needs."""

from __future__ import annotations

from typing import Any, NamedTuple

import tensorflow as tf
from tf_agents.distributions import utils as distribution_utils
from tf_agents.policies import tf_policy
from tf_agents.trajectories import policy_step
from tf_agents.trajectories import time_step as ts

from tfdrl.errors import ConfigurationError
from tfdrl.networks.actor_critic_heads import mask_of_elements
from tfdrl.networks.observations import num_categories, one_hot
from tfdrl.ops import action_masks


class ActorCriticInput(NamedTuple):
    """What a network sees that is told its last action and reward (IMPALA, section 5.3.1).

    observation  nest of [..., ...]
    last_action  <float32>[..., A]  one-hot (of an array of integers those of its elements, side by
                                    side), or the vector; zeros at the first step of an episode
    last_reward  <float32>[...]     clipped, if the agent says so; zero at the first step of an
                                    episode
    """

    observation: Any
    last_action: tf.Tensor
    last_reward: tf.Tensor


class ActorCriticState(NamedTuple):
    """State of a policy between two steps: the network's, and the action it took last."""

    network: Any
    last_action: Any


def input_spec(observation_spec, action_spec, last_action_and_reward: bool):
    """The spec of what the network is given; raises ConfigurationError for several actions."""
    if not last_action_and_reward:
        return observation_spec
    if tf.nest.is_nested(action_spec):
        raise ConfigurationError(
            f"a network is told its last action where there is one, but the spec is {action_spec}"
        )
    is_count = action_spec.dtype.is_integer
    size = sum(num_categories(action_spec)) if is_count else action_spec.shape.num_elements()
    return ActorCriticInput(
        observation_spec,
        tf.TensorSpec([size], tf.float32, "last_action"),
        tf.TensorSpec([], tf.float32, "last_reward"),
    )


def network_input(
    observation, step_type, last_action, last_reward, action_spec, last_reward_clip: float | None
):
    """`ActorCriticInput` of any outer dimensions, the same when acting and when learning.

    Args:
      observation: nest of [..., ...].
      step_type: <int32>[...]; what came before a FIRST step belongs to another episode.
      last_action: [...] of `action_spec`.
      last_reward: <float32>[...].
      action_spec: of the environment.
      last_reward_clip: rewards are clipped to [-last_reward_clip, last_reward_clip]; None: not.
    """
    goes_on = tf.cast(step_type != ts.StepType.FIRST, tf.float32)
    if action_spec.dtype.is_integer:
        action = one_hot(last_action, action_spec)
    else:
        outer = tf.shape(step_type)
        size = action_spec.shape.num_elements()
        action = tf.reshape(tf.cast(last_action, tf.float32), tf.concat([outer, [size]], 0))
    if last_reward_clip is not None:
        last_reward = tf.clip_by_value(last_reward, -last_reward_clip, last_reward_clip)
    # A reward that is not finite spoils its unroll's loss, which tells the learner, and no more.
    last_reward = tf.where(tf.math.is_finite(last_reward), last_reward, tf.zeros_like(last_reward))
    return ActorCriticInput(
        observation,
        action * goes_on[..., None],
        last_reward * goes_on,
    )


def training_state(policy, policy_state, experience):
    """A policy's state before unrolls, in its own structure; None stands for the initial one.

    Args:
      policy: that acted.
      policy_state: nest of [B, ...] before index 0, or None.
      experience: Trajectory of [B, ...].
    """
    if policy_state is None:
        return policy.get_initial_state(tf.shape(experience.step_type)[0])
    # tf.data makes tuples of the lists in which Keras' cells keep their states
    return tf.nest.pack_sequence_as(policy.policy_state_spec, tf.nest.flatten(policy_state))


def training_input(
    experience, last_action, last_reward, action_spec, last_reward_clip: float | None
) -> ActorCriticInput:
    """What the network saw while unrolls were made.

    Args:
      experience: Trajectory of [B, T+1, ...].
      last_action: [B, ...], that led to index 0.
      last_reward: <float32>[B], that led to index 0; None for zero.
      action_spec, last_reward_clip: as of `network_input`.
    """
    if last_reward is None:
        last_reward = tf.zeros(tf.shape(experience.step_type)[:1])
    return network_input(
        experience.observation,
        experience.step_type,
        tf.concat([last_action[:, None], experience.action[:, :-1]], axis=1),
        tf.concat([last_reward[:, None], experience.reward[:, :-1]], axis=1),
        action_spec,
        last_reward_clip,
    )


def parameters(distribution):
    """The tensors that determine a distribution, as a nest: logits, or mean and deviation."""
    return distribution_utils.parameters_to_dict(
        distribution_utils.get_parameters(distribution), tensors_only=True
    )


def with_parameters(distribution, values):
    """A distribution of the same kind with other parameters, as `parameters` gave them."""
    like = distribution_utils.get_parameters(distribution)
    merged = distribution_utils.merge_to_parameters_from_dict(like, values)
    return distribution_utils.make_from_parameters(merged)


class ActorCriticPolicy(tf_policy.TFPolicy):
    """Samples actions from the network's distribution, or takes its mode.

    Its `info` when it samples is the distribution's parameters (behaviour logits), nest of
    [N, ...]: they are those that chose the action, before any clipping by the environment.

    Args:
      time_step_spec, action_spec: of the environment, without batch dimension.
      network: see networks/actor_critic_networks.py.
      info_spec: of the distribution's parameters; () to report none.
      last_action_and_reward: whether the network's input is an `ActorCriticInput`.
      greedy: whether to take the mode instead of a sample.
      seed: of the samples. The generator is a checkpointable attribute.
      last_reward_clip: of the reward that the network is told; None for none.
      splitter: gives (observation, mask), of a masked network; see `masked_network.mask_alone`.
    """

    def __init__(
        self,
        time_step_spec,
        action_spec,
        network,
        info_spec=(),
        last_action_and_reward: bool = False,
        greedy: bool = False,
        seed: int = 0,
        last_reward_clip: float | None = 1.0,
        splitter=None,
    ):
        state_spec = network.state_spec
        if last_action_and_reward:
            state_spec = ActorCriticState(state_spec, action_spec)
        super().__init__(
            time_step_spec,
            action_spec,
            policy_state_spec=state_spec,
            info_spec=info_spec,
            observation_and_action_constraint_splitter=splitter,
            clip=False,  # the behaviour policy's probability is of the action as it was sampled
            automatic_state_reset=False,  # the network resets its own state at FIRST
        )
        self._network = network
        self._last_action_and_reward = last_action_and_reward
        self._greedy, self._last_reward_clip = greedy, last_reward_clip
        self.generator = tf.random.Generator.from_seed(seed)

    def _variables(self):
        return self._network.variables

    def _action(self, time_step, policy_state, seed):
        del seed
        observation, network_state = time_step.observation, policy_state
        if self._last_action_and_reward:
            network_state = policy_state.network
            observation = network_input(
                observation,
                time_step.step_type,
                policy_state.last_action,
                time_step.reward,
                self.action_spec,
                self._last_reward_clip,
            )
        (distribution, _), network_state = self._network(
            observation, step_type=time_step.step_type, network_state=network_state
        )
        action = tf.cast(self._choose(distribution), self.action_spec.dtype)
        if self.action_spec.dtype.is_integer:  # logits that are NaN give one too many
            action = tf.minimum(action, tf.cast(self.action_spec.maximum, action.dtype))
        splitter = self.observation_and_action_constraint_splitter
        if splitter:
            mask = mask_of_elements(splitter(time_step.observation)[1], self.action_spec)
            action = _allowed(action, mask, distribution)
        if self._last_action_and_reward:
            network_state = ActorCriticState(network_state, action)
        info = parameters(distribution) if self.info_spec else ()
        return policy_step.PolicyStep(action, network_state, info)

    def _choose(self, distribution):
        if self._greedy:
            return distribution.mode()
        return distribution.sample(seed=self.generator.uniform_full_int([2], tf.int32))

    def _distribution(self, time_step, policy_state):
        raise NotImplementedError("use `action`; its info has the distribution's parameters")


def _allowed(action, mask, distribution):
    """The action; where logits that are NaN made it a forbidden one, the first that is allowed."""
    is_allowed = tf.gather(action_masks.allowed(mask), action, batch_dims=action.shape.rank)
    each = getattr(distribution, "distribution", distribution)  # of independent ones
    instead = action_masks.best_action(each.logits_parameter(), mask)
    return tf.where(is_allowed, action, tf.cast(instead, action.dtype))
