"""Recurrent Q-networks: sequences of inputs in, values of each action out, a state between calls.

Wherever a gin file asks for one, it names a callable `network(input_spec, action_spec)` that
returns a `tf_agents.networks.Network` with

    q, next_state = network(observation, step_type=..., network_state=..., training=False)

- observation: nest of [B, ...] when acting, [B, T, ...] when learning.
- q: <float32>[B, A] or [B, T, A].
- state: nest of [B, ...], () if the network has none; zeroed before a step of step_type FIRST.
"""

from __future__ import annotations

from collections.abc import Sequence

import gin
import tensorflow as tf
from tf_agents.keras_layers import dynamic_unroll_layer
from tf_agents.networks import network
from tf_agents.trajectories import StepType

from tfdrl.networks import observations, torsos
from tfdrl.networks.outer_dims import merge_outer_dims, outer_dims, split_outer_dims
from tfdrl.networks.q_networks import num_actions
from tfdrl.ops import q_learning


class TorsoRecurrentQNetwork(network.Network):
    """A torso, an LSTM, and one linear or two dueling heads (Kapturowski 2019, section 2.3).

    Args:
      input_spec: nest of TensorSpecs.
      action_spec: one scalar discrete action.
      torso: the input as `observations.as_floats` makes it -> [N, F].
      lstm_units: of the LSTM; None for a feed-forward network.
      head_units: hidden units of each head; None for none.
      dueling: a value and an advantage head instead of one.

    Raises:
      ConfigurationError: continuous actions.
    """

    def __init__(
        self,
        input_spec,
        action_spec,
        torso: tf.keras.layers.Layer,
        lstm_units: int | None,
        head_units: int | None,
        dueling: bool,
        name: str,
    ):
        parts = ("h", "c") if lstm_units else ()
        state_spec = [tf.TensorSpec([lstm_units], tf.float32, part) for part in parts]
        super().__init__(input_spec, state_spec=state_spec or (), name=name)
        self._torso = torso
        self._lstm = None
        if lstm_units:
            cell = tf.keras.layers.LSTMCell(lstm_units)
            self._lstm = dynamic_unroll_layer.DynamicUnroll(cell, name="lstm")
        actions = num_actions(action_spec)
        self._q_head = _head(actions, head_units, "advantage" if dueling else "q")
        self._value_head = _head(1, head_units, "value") if dueling else []

    def call(self, observation, step_type=None, network_state=(), training=False):
        dims = outer_dims(observation, self.input_tensor_spec)
        merged = merge_outer_dims(observation, self.input_tensor_spec)
        leaves = observations.as_floats(merged, self.input_tensor_spec)
        features = split_outer_dims(self._torso(leaves, training=training), dims)
        next_state = ()
        if self._lstm is not None:
            features, next_state = self._recur(features, step_type, network_state)
        features = tf.reshape(features, [-1, features.shape[-1]])
        q = _apply(self._q_head, features)
        if self._value_head:
            q = q_learning.dueling(_apply(self._value_head, features), q)
        return split_outer_dims(q, dims), next_state

    def _recur(self, features, step_type, network_state):
        is_first = tf.equal(step_type, StepType.FIRST)
        if is_first.shape.rank == 1:
            is_first = is_first[:, None]
        features, state = self._lstm(
            features,
            initial_state=[tf.convert_to_tensor(part) for part in network_state],
            reset_mask=is_first,
        )
        return features, list(state)


def _head(outputs: int, units: int | None, name: str) -> list[tf.keras.layers.Layer]:
    hidden = [tf.keras.layers.Dense(units, "relu", name=f"{name}_hidden")] if units else []
    return [*hidden, tf.keras.layers.Dense(outputs, name=name)]


def _apply(layers: Sequence[tf.keras.layers.Layer], tensor: tf.Tensor) -> tf.Tensor:
    for layer in layers:
        tensor = layer(tensor)
    return tensor


@gin.configurable
class MlpRecurrentQNetwork(TorsoRecurrentQNetwork):
    """Fully connected layers over the flattened, concatenated input, an LSTM, the heads.

    Args:
      input_spec: any nest of TensorSpecs.
      action_spec: one scalar discrete action.
      layer_units: units of each layer before the LSTM.
      lstm_units: of the LSTM; None for none.
      head_units: hidden units of each head; None for none.
      dueling: whether to split value and advantage.
      activation: of the layers before the LSTM.
    """

    def __init__(
        self,
        input_spec,
        action_spec,
        layer_units: tuple = (64,),
        lstm_units: int | None = 64,
        head_units: int | None = None,
        dueling: bool = True,
        activation: str = "relu",
        name: str = "MlpRecurrentQNetwork",
    ):
        torso = torsos.MlpTorso(layer_units, activation, name="torso")
        super().__init__(input_spec, action_spec, torso, lstm_units, head_units, dueling, name)


@gin.configurable
class NatureRecurrentQNetwork(TorsoRecurrentQNetwork):
    """R2D2's network: the convolutions of Mnih 2015, a dense layer, an LSTM, dueling heads.

    Args:
      input_spec: nest with exactly one image [height, width, channels] of at least 36x36, of
        which uint8 is divided by 255; last action and reward join after the dense layer.
      action_spec: one scalar discrete action.
      lstm_units, dense_units, head_units: 512 each in the paper.
      dueling: whether to split value and advantage.

    Raises:
      ConfigurationError: not exactly one image, or continuous actions.
    """

    def __init__(
        self,
        input_spec,
        action_spec,
        lstm_units: int | None = 512,
        dense_units: int = 512,
        head_units: int | None = 512,
        dueling: bool = True,
        name: str = "NatureRecurrentQNetwork",
    ):
        torsos.check_one_image(input_spec, "NatureRecurrentQNetwork", min_size=36)
        layers = torsos.convolutions((32, 8, 4), (64, 4, 2), (64, 3, 1))
        torso = torsos.ImageTorso(layers, dense_units, "torso")
        super().__init__(input_spec, action_spec, torso, lstm_units, head_units, dueling, name)
