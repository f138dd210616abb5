"""Actor-critic networks: an input in; a distribution over actions and a value out.

Wherever a gin file asks for one, it names a callable `network(input_spec, action_spec)` that
returns a `tf_agents.networks.Network` with

    ((distribution, value), next_state) = network(
        observation, step_type=..., network_state=..., training=False)

- observation: nest of [B, ...] when acting, [B, T, ...] when learning.
- distribution: of tensorflow_probability, of batch shape [B] or [B, T] and the event shape of
  the action; its log_prob is [B] or [B, T].
- value: <float32>[B] or [B, T].
- state: nest of [B, ...] as `state_spec` says, () if the network has none. A recurrent network
  zeroes it before a step whose step_type is FIRST. Sequences give the state before their first
  step and return that after their last.

The classes below are such callables. Those of networks/actor_critic_adapters.py make them of
Keras models and of TF-Agents' own networks.
"""

from __future__ import annotations

from collections.abc import Sequence

import gin
import tensorflow as tf
from tf_agents.keras_layers import dynamic_unroll_layer
from tf_agents.networks import network
from tf_agents.trajectories import StepType

from tfdrl.errors import ConfigurationError
from tfdrl.networks import actor_critic_checks, observations, torsos
from tfdrl.networks.actor_critic_heads import policy_head
from tfdrl.networks.outer_dims import merge_outer_dims, outer_dims, split_outer_dims

check_distribution = actor_critic_checks.check_distribution


class ActorCriticNetwork(network.Network):
    """A network that says so if it is recurrent and lacks its state or the step types."""

    def __call__(self, observation, step_type=None, network_state=(), training=False):
        states = tf.nest.flatten(self.state_spec)
        given = [] if network_state is None else tf.nest.flatten(network_state)
        if states and len(given) != len(states):
            shapes = " and ".join(str(["B", *spec.shape]).replace("'", "") for spec in states)
            raise ConfigurationError(
                f"{self.name} is recurrent and needs the state before the step, network_state of "
                f"{shapes}, but got {len(given) or 'no'} tensors; begin with "
                "get_initial_state(batch_size) and pass on what each call returns"
            )
        if states and step_type is None:
            raise ConfigurationError(
                f"{self.name} is recurrent and needs step_type, to forget at an episode's start"
            )
        return super().__call__(
            observation, step_type=step_type, network_state=network_state, training=training
        )


class TorsoActorCriticNetwork(ActorCriticNetwork):
    """One torso for policy and value or one for each, an LSTM after each if any, two heads.

    Args:
      input_spec: nest of TensorSpecs.
      action_spec: one array of integers that start at 0, or of float32.
      torso_layers: one layer, or the actor's and the critic's: the input as
        `observations.as_floats` makes it -> [N, F].
      lstm_units: of the LSTM (one for each torso); None for a feed-forward network.
      initial_std: of a Gaussian policy.

    Raises:
      ConfigurationError: an unsupported action spec.
    """

    def __init__(
        self,
        input_spec,
        action_spec,
        torso_layers: Sequence[tf.keras.layers.Layer],
        lstm_units: int | None,
        initial_std: float,
        name: str,
    ):
        lstm_state = [tf.TensorSpec([lstm_units], tf.float32, part) for part in ("h", "c")]
        states = lstm_state if len(torso_layers) == 1 else [lstm_state for _ in torso_layers]
        super().__init__(input_spec, state_spec=states if lstm_units else (), name=name)
        self._torsos = list(torso_layers)
        # A loop in Python over 20 steps of a batch of 32 was, forward and backward, as fast with
        # 128 units and 15 % faster with 256, but half as fast under XLA and slow to trace.
        self._lstms = [
            dynamic_unroll_layer.DynamicUnroll(
                tf.keras.layers.LSTMCell(lstm_units), name=f"{torso.name}_lstm"
            )
            for torso in (torso_layers if lstm_units else ())
        ]
        self._policy_head = policy_head(action_spec, initial_std)
        self._value_head = tf.keras.layers.Dense(1, name="value")

    def call(self, observation, step_type=None, network_state=(), training=False):
        dims = outer_dims(observation, self.input_tensor_spec)
        merged = merge_outer_dims(observation, self.input_tensor_spec)
        leaves = observations.as_floats(merged, self.input_tensor_spec)
        features = [
            split_outer_dims(torso(leaves, training=training), dims) for torso in self._torsos
        ]
        next_state = ()
        if self._lstms:
            features, next_state = self._recur(features, step_type, network_state)
        distribution = self._policy_head(features[0])
        value = tf.squeeze(self._value_head(features[-1]), axis=-1)
        return (distribution, value), next_state

    def _recur(self, features, step_type, network_state):
        is_first = tf.equal(step_type, StepType.FIRST)
        if is_first.shape.rank == 1:
            is_first = is_first[:, None]  # [B, 1] also for features without a time dimension
        states = [network_state] if len(self._lstms) == 1 else network_state
        results = [
            lstm(
                inputs,
                initial_state=[tf.convert_to_tensor(part) for part in state],
                reset_mask=is_first,
            )
            for lstm, inputs, state in zip(self._lstms, features, states)
        ]
        outputs, states = zip(*results)
        states = [list(state) for state in states]
        return outputs, states[0] if len(states) == 1 else states


@gin.configurable
class MlpActorCriticNetwork(TorsoActorCriticNetwork):
    """Fully connected layers over the flattened, concatenated input.

    Args:
      input_spec: any nest of TensorSpecs.
      action_spec: one array of integers that start at 0, or of float32.
      layer_units: units of each hidden layer.
      lstm_units: of an LSTM after them; None for none.
      activation: of the hidden layers.
      separate_critic: whether the value has layers (and an LSTM) of its own.
      initial_std: standard deviation of a Gaussian policy before training, in units of the
        action.

    Raises:
      ConfigurationError: an unsupported action spec.
    """

    def __init__(
        self,
        input_spec,
        action_spec,
        layer_units: tuple = (64, 64),
        lstm_units: int | None = None,
        activation: str = "tanh",
        separate_critic: bool = False,
        initial_std: float = 1.0,
        name: str = "MlpActorCriticNetwork",
    ):
        names = ("actor", "critic") if separate_critic else ("torso",)
        layers = [torsos.MlpTorso(layer_units, activation, name=part) for part in names]
        super().__init__(input_spec, action_spec, layers, lstm_units, initial_std, name)


@gin.configurable
class NatureActorCriticNetwork(TorsoActorCriticNetwork):
    """The convolutions of Mnih 2015: 32 of 8x8 stride 4, 64 of 4x4 stride 2, 64 of 3x3.

    Args:
      input_spec: nest with exactly one image [height, width, channels] of at least 36x36, of
        which uint8 is divided by 255; everything else joins after the dense layer.
      action_spec: one array of integers that start at 0, or of float32.
      lstm_units: of an LSTM after the dense layer; None for none.
      dense_units: of the dense layer after the convolutions.
      initial_std: standard deviation of a Gaussian policy before training.

    Raises:
      ConfigurationError: not exactly one image, or an unsupported action spec.
    """

    def __init__(
        self,
        input_spec,
        action_spec,
        lstm_units: int | None = None,
        dense_units: int = 512,
        initial_std: float = 1.0,
        name: str = "NatureActorCriticNetwork",
    ):
        torsos.check_one_image(input_spec, "NatureActorCriticNetwork", min_size=36)
        layers = torsos.convolutions((32, 8, 4), (64, 4, 2), (64, 3, 1))
        torso = torsos.ImageTorso(layers, dense_units, "torso")
        super().__init__(input_spec, action_spec, [torso], lstm_units, initial_std, name)


@gin.configurable
class ShallowActorCriticNetwork(TorsoActorCriticNetwork):
    """IMPALA's shallow network (Espeholt 2018, figure 3 left): 16 of 8x8/4, 32 of 4x4/2, dense.

    Args:
      input_spec: as of NatureActorCriticNetwork, with an image of at least 20x20.
      action_spec: one array of integers that start at 0, or of float32.
      lstm_units: of an LSTM after the dense layer (the paper: 256, none on Atari); None for none.
      dense_units: of the dense layer after the convolutions.
      initial_std: standard deviation of a Gaussian policy before training.

    Raises:
      ConfigurationError: not exactly one image, or an unsupported action spec.
    """

    def __init__(
        self,
        input_spec,
        action_spec,
        lstm_units: int | None = None,
        dense_units: int = 256,
        initial_std: float = 1.0,
        name: str = "ShallowActorCriticNetwork",
    ):
        torsos.check_one_image(input_spec, "ShallowActorCriticNetwork", min_size=20)
        torso = torsos.ImageTorso(torsos.convolutions((16, 8, 4), (32, 4, 2)), dense_units, "torso")
        super().__init__(input_spec, action_spec, [torso], lstm_units, initial_std, name)


@gin.configurable
class DeepActorCriticNetwork(TorsoActorCriticNetwork):
    """IMPALA's deep network (Espeholt 2018, figure 3 right): a residual tower, a dense layer.

    Args:
      input_spec: as of NatureActorCriticNetwork, with an image of any size.
      action_spec: one array of integers that start at 0, or of float32.
      lstm_units: of an LSTM after the dense layer (the paper: 256, none on Atari); None for none.
      dense_units: of the dense layer after the tower.
      channels: of each stage of the tower; a stage has 5 convolutions and halves the image.
      initial_std: standard deviation of a Gaussian policy before training.

    Raises:
      ConfigurationError: not exactly one image, or an unsupported action spec.
    """

    def __init__(
        self,
        input_spec,
        action_spec,
        lstm_units: int | None = None,
        dense_units: int = 256,
        channels: tuple = (16, 32, 32),
        initial_std: float = 1.0,
        name: str = "DeepActorCriticNetwork",
    ):
        torsos.check_one_image(input_spec, "DeepActorCriticNetwork", min_size=1)
        torso = torsos.ImageTorso(torsos.residual_tower(channels), dense_units, "torso")
        super().__init__(input_spec, action_spec, [torso], lstm_units, initial_std, name)
