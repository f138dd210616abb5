"""Q-networks: an observation in, one value for each action out.

Wherever a gin file asks for a network, it names a callable `network(observation_spec,
action_spec)` that returns a `tf_agents.networks.Network`, such as the classes below, TF-Agents'
`QNetwork`, or one of your own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gin
import tensorflow as tf
from tf_agents.networks import network

from tfdrl.errors import ConfigurationError
from tfdrl.networks import observations
from tfdrl.networks.precision import torso_policy
from tfdrl.ops import q_learning


def num_actions(action_spec) -> int:
    """How many actions a scalar discrete action spec allows, starting at 0.

    Raises:
      ConfigurationError: continuous actions, or more than one of them.
    """
    flat = tf.nest.flatten(action_spec)
    if len(flat) != 1 or flat[0].shape.rank != 0 or not flat[0].dtype.is_integer:
        raise ConfigurationError(
            "a Q-network needs one discrete action (a Gymnasium Discrete space), but the "
            f"environment's action spec is {action_spec}; VTraceAgent, NStepActorCriticAgent and "
            "TF-Agents' PPO train arrays of them (MultiDiscrete) and continuous ones (a Box of "
            "floats)"
        )
    return int(flat[0].maximum) - int(flat[0].minimum) + 1


class TorsoQNetwork(network.Network):
    """A torso of Keras layers, then one linear or two dueling heads (Wang 2016).

    Args:
      observation_spec: nest of TensorSpecs; the torso takes it as `preprocess` makes it.
      action_spec: one scalar discrete action.
      torso: layers from the preprocessed observation to features.
      head_units: hidden units of each head; None puts the linear output on the torso.
      dueling: a value and an advantage head instead of one.
    """

    def __init__(
        self,
        observation_spec,
        action_spec,
        torso: Sequence[tf.keras.layers.Layer],
        head_units: int | None,
        dueling: bool,
        name: str,
    ):
        super().__init__(input_tensor_spec=observation_spec, state_spec=(), name=name)
        self._torso = list(torso)
        self._q_head = _head(num_actions(action_spec), head_units, "advantage" if dueling else "q")
        self._value_head = _head(1, head_units, "value") if dueling else []

    def preprocess(self, observation) -> tf.Tensor:
        """Makes one float32 tensor [B, ...] of the observation; see networks/observations.py."""
        raise NotImplementedError

    def call(self, observation, step_type=None, network_state=(), training=False):
        del step_type
        features = self.preprocess(observation)
        for layer in self._torso:
            features = layer(features, training=training)
        features = tf.cast(features, tf.float32)
        q = _apply(self._q_head, features)
        if self._value_head:
            q = q_learning.dueling(_apply(self._value_head, features), q)
        return q, network_state


def _head(outputs: int, units: int | None, name: str) -> list[tf.keras.layers.Layer]:
    hidden = [tf.keras.layers.Dense(units, "relu", name=f"{name}_hidden")] if units else []
    return [*hidden, tf.keras.layers.Dense(outputs, name=name)]


def _apply(layers, tensor):
    for layer in layers:
        tensor = layer(tensor)
    return tensor


@gin.configurable
class MlpQNetwork(TorsoQNetwork):
    """Fully connected layers over the flattened, concatenated observation.

    Args:
      observation_spec, action_spec: of the environment.
      layer_units: units of each hidden layer.
      head_units: hidden units of each head after the layers; None for none.
      dueling: whether to split value and advantage.
      activation: of the hidden layers.
    """

    def __init__(
        self,
        observation_spec,
        action_spec,
        layer_units: tuple = (256, 256),
        head_units: int | None = None,
        dueling: bool = False,
        activation: str = "relu",
        name: str = "MlpQNetwork",
    ):
        torso = [
            tf.keras.layers.Dense(units, activation, dtype=torso_policy()) for units in layer_units
        ]
        super().__init__(observation_spec, action_spec, torso, head_units, dueling, name)

    def preprocess(self, observation):
        return observations.as_vector(observation, self.input_tensor_spec)


@gin.configurable
class NatureQNetwork(TorsoQNetwork):
    """The convolutions of Mnih 2015 with a plain or a dueling head of 512 units (Wang 2016).

    32 filters 8x8 stride 4, 64 of 4x4 stride 2, 64 of 3x3 stride 1 over frames [B, 84, 84, 4]:
    uint8 divided by 255, floats as they are.

    Args:
      observation_spec, action_spec: of the environment; one image, channels last.
      dueling: whether to split value and advantage (Ape-X does, Mnih 2015 does not).
      head_units: hidden units of each head.

    Raises:
      ConfigurationError: the observation is not one image of at least 36x36.
    """

    def __init__(
        self,
        observation_spec,
        action_spec,
        dueling: bool = True,
        head_units: int = 512,
        name: str = "NatureQNetwork",
    ):
        flat = tf.nest.flatten(observation_spec)
        if len(flat) != 1 or not observations.is_image(flat[0]) or min(flat[0].shape[:2]) < 36:
            raise ConfigurationError(
                "NatureQNetwork needs one image [height, width, channels] of at least 36x36, "
                f"but the observation spec is {observation_spec}; for vectors use MlpQNetwork"
            )
        torso = [
            tf.keras.layers.Conv2D(filters, size, stride, activation="relu", dtype=torso_policy())
            for filters, size, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1))
        ] + [tf.keras.layers.Flatten(dtype=torso_policy())]
        super().__init__(observation_spec, action_spec, torso, head_units, dueling, name)

    def preprocess(self, observation):
        (image,) = observations.as_floats(observation, self.input_tensor_spec)
        return image


@gin.configurable
class KerasQNetwork(network.Network):
    """Any Keras model as a Q-network.

    Args:
      observation_spec, action_spec: of the environment.
      model: `model(observation_spec, num_actions) -> tf.keras.Model`, which maps a batch of
        observations to values [B, num_actions]. It is called once for each network (online and
        target), so that they share no weights.
    """

    def __init__(
        self,
        observation_spec,
        action_spec,
        model: Callable = gin.REQUIRED,
        name: str = "KerasQNetwork",
    ):
        super().__init__(input_tensor_spec=observation_spec, state_spec=(), name=name)
        self._model = model(observation_spec, num_actions(action_spec))

    def call(self, observation, step_type=None, network_state=(), training=False):
        del step_type
        return self._model(observation, training=training), network_state
