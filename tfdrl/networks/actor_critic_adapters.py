"""Actor-critic networks made of Keras models and of TF-Agents' own networks."""

from __future__ import annotations

from collections.abc import Callable

import gin
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.specs import tensor_spec

from tfdrl.errors import ConfigurationError
from tfdrl.networks.actor_critic_checks import advice_on_arrays
from tfdrl.networks.actor_critic_heads import categorical, gaussian, num_outputs
from tfdrl.networks.actor_critic_networks import ActorCriticNetwork
from tfdrl.networks.outer_dims import merge_outer_dims, outer_dims, split_outer_dims


@gin.configurable
class KerasActorCriticNetwork(ActorCriticNetwork):
    """Any feed-forward Keras model as an actor-critic network.

    Args:
      input_spec: nest of TensorSpecs.
      action_spec: one discrete action, or one array of d float32.
      model: `model(input_spec, num_parameters) -> tf.keras.Model`, which maps a batch [N, ...]
        to a pair (parameters, value). Parameters <float32>[N, num_parameters] are the logits of
        A actions, for an array those of all its elements side by side; or, for continuous ones,
        2 d numbers: d means, then d of which the standard deviations are the softplus. Value is
        <float32>[N] or [N, 1].

    Raises:
      ConfigurationError: an unsupported action spec, or a model with other outputs.
    """

    def __init__(
        self,
        input_spec,
        action_spec,
        model: Callable = gin.REQUIRED,
        name: str = "KerasActorCriticNetwork",
    ):
        super().__init__(input_spec, state_spec=(), name=name)
        outputs = num_outputs(action_spec)
        self._action_spec = action_spec
        self._is_discrete = tf.nest.flatten(action_spec)[0].dtype.is_integer
        num_parameters = outputs if self._is_discrete else 2 * outputs
        self._model = model(input_spec, num_parameters)
        zeros = tensor_spec.zero_spec_nest(self.input_tensor_spec, outer_dims=[2])
        _check_model(self._model(zeros), num_parameters, action_spec)

    def call(self, observation, step_type=None, network_state=(), training=False):
        del step_type, network_state
        dims = outer_dims(observation, self.input_tensor_spec)
        merged = merge_outer_dims(observation, self.input_tensor_spec)
        parameters, value = self._model(merged, training=training)
        parameters = split_outer_dims(parameters, dims)
        value = split_outer_dims(tf.reshape(value, [-1]), dims)
        if self._is_discrete:
            return (categorical(parameters, self._action_spec), value), ()
        mean, raw_std = tf.split(parameters, 2, axis=-1)
        return (gaussian(mean, raw_std, self._action_spec), value), ()


def _check_model(outputs, num_parameters: int, action_spec) -> None:
    """Refuses the outputs of a model for a batch of 2 that are not (parameters, value)."""
    is_pair = isinstance(outputs, (tuple, list)) and len(outputs) == 2
    shapes = [tf.convert_to_tensor(output).shape.as_list() for output in tf.nest.flatten(outputs)]
    if is_pair and shapes[0] == [2, num_parameters] and shapes[1] in ([2], [2, 1]):
        return
    raise ConfigurationError(
        f"KerasActorCriticNetwork.model must return a pair: {num_parameters} parameters of the "
        f"policy for {action_spec} and a value, [N, {num_parameters}] and [N] or [N, 1]; for "
        f"N = 2 it returned {', '.join(map(str, shapes))}"
    )


@gin.configurable
class SeparateActorCriticNetwork(ActorCriticNetwork):
    """An actor and a critic that are networks of their own, such as TF-Agents'.

    These work, for [B, ...] and [B, T, ...], in any combination:
    - actor: ActorDistributionNetwork, ActorDistributionRnnNetwork. For continuous actions these
      squash the mean to the spec's bounds, which must be finite. MlpPolicyNetwork.
    - critic: ValueNetwork, ValueRnnNetwork.
    The Rnn ones zero their state before a step of step_type FIRST. An input of several tensors
    needs their argument `preprocessing_combiner`, a layer that makes one of the nest; integers
    need one that makes them floats.
    Others must take both outer shapes, return a distribution and one value for each step, and,
    if they are recurrent, reset by step_type themselves.

    Args:
      input_spec: nest of TensorSpecs.
      action_spec: as the actor takes it.
      actor: `actor(input_spec, action_spec)` -> network from input to distribution.
      critic: `critic(input_spec)` -> network from input to value.

    The state is the list of the actor's and the critic's, () if neither has one. Of an array of
    integers TF-Agents' actors give one distribution for each element; here they are one product.
    """

    def __init__(
        self,
        input_spec,
        action_spec,
        actor: Callable = gin.REQUIRED,
        critic: Callable = gin.REQUIRED,
        name: str = "SeparateActorCriticNetwork",
    ):
        with advice_on_arrays(action_spec):
            parts = [actor(input_spec, action_spec), critic(input_spec)]
        states = [part.state_spec for part in parts]
        super().__init__(input_spec, states if tf.nest.flatten(states) else (), name=name)
        self._actor, self._critic = parts
        self._action_rank = tf.nest.flatten(action_spec)[0].shape.rank

    def call(self, observation, step_type=None, network_state=(), training=False):
        states = network_state if self.state_spec else ((), ())
        (distribution, actor_state), (value, critic_state) = (
            part(observation, step_type=step_type, network_state=state, training=training)
            for part, state in zip((self._actor, self._critic), states)
        )
        is_each = isinstance(distribution, tfp.distributions.Categorical)
        if is_each and self._action_rank:
            distribution = tfp.distributions.Independent(distribution, self._action_rank)
        next_state = [actor_state, critic_state] if self.state_spec else ()
        return (distribution, value), next_state
