"""Torsos: the arrays [N, ...] of an observation in, one vector of features <float32>[N, F] out.

They may calculate in bfloat16; see networks/precision.py.
"""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf

from tfdrl.errors import ConfigurationError
from tfdrl.networks.observations import is_image, side_by_side
from tfdrl.networks.precision import torso_policy


def check_one_image(input_spec, network: str, min_size: int) -> None:
    """Refuses an input that has not exactly one image.

    Args:
      input_spec: nest of TensorSpecs; numbers of rank 3 are images [height, width, channels].
      network: name of the network that asks.
      min_size: the least height and width that its convolutions can take.

    Raises:
      ConfigurationError: no image, several, or one that is too small.
    """
    images = [spec for spec in tf.nest.flatten(input_spec) if is_image(spec)]
    if len(images) == 1 and min(images[0].shape[:2]) >= min_size:
        return
    found = ", ".join(str(spec.shape) for spec in images) or "none"
    raise ConfigurationError(
        f"{network} needs exactly one image [height, width, channels] of at least "
        f"{min_size}x{min_size} beside any number of vectors, but found {found} in "
        f"{input_spec}; for vectors use MlpActorCriticNetwork, for several images a model of "
        "your own in KerasActorCriticNetwork"
    )


class MlpTorso(tf.keras.layers.Layer):
    """Fully connected layers over the whole input, flattened and concatenated."""

    def __init__(self, layer_units: Sequence[int], activation: str, name: str):
        super().__init__(name=name, autocast=False)
        self._layers = [
            tf.keras.layers.Dense(units, activation, name=f"dense_{i}", dtype=torso_policy())
            for i, units in enumerate(layer_units)
        ]

    def call(self, leaves, training=False):
        """`leaves` as `observations.as_floats` makes them."""
        del training
        features = side_by_side(leaves)
        for layer in self._layers:
            features = layer(features)
        return tf.cast(features, tf.float32)


class ImageTorso(tf.keras.layers.Layer):
    """Convolutions over the image and a dense layer; then everything else is appended.

    Args:
      convolutions: layers [N, height, width, channels] -> [N, ...].
      dense_units: units of the dense layer after them.
    """

    def __init__(self, convolutions: Sequence[tf.keras.layers.Layer], dense_units: int, name: str):
        super().__init__(name=name, autocast=False)
        self._layers = [
            *convolutions,
            tf.keras.layers.Flatten(name="flatten", dtype=torso_policy()),
            tf.keras.layers.Dense(dense_units, "relu", name="dense", dtype=torso_policy()),
        ]

    def call(self, leaves, training=False):
        """`leaves` as `observations.as_floats` makes them."""
        del training
        (features,) = [leaf for leaf in leaves if leaf.shape.rank == 4]
        others = [leaf for leaf in leaves if leaf.shape.rank != 4]
        for layer in self._layers:
            features = layer(features)
        return side_by_side([tf.cast(features, tf.float32), *others])


def convolutions(*layers: tuple[int, int, int]) -> list[tf.keras.layers.Layer]:
    """Convolutions without padding, each with a ReLU, of (filters, size, stride)."""
    return [
        tf.keras.layers.Conv2D(
            filters,
            size,
            stride,
            activation="relu",
            name=f"convolution_{i}",
            dtype=torso_policy(),
        )
        for i, (filters, size, stride) in enumerate(layers)
    ]


def residual_tower(channels: Sequence[int]) -> list[tf.keras.layers.Layer]:
    """The deep network's convolutions (Espeholt 2018, figure 3 right): one stage a number.

    A stage is a 3x3 convolution, max-pooling 3x3 of stride 2, and two residual blocks; all
    padded ("same"). A ReLU ends the tower.
    """
    layers, same = [], {"padding": "same", "dtype": torso_policy()}
    for i, filters in enumerate(channels):
        layers += [
            tf.keras.layers.Conv2D(filters, 3, name=f"stage_{i}_convolution", **same),
            tf.keras.layers.MaxPool2D(3, 2, name=f"stage_{i}_pooling", **same),
            ResidualBlock(filters, name=f"stage_{i}_block_0"),
            ResidualBlock(filters, name=f"stage_{i}_block_1"),
        ]
    return [*layers, tf.keras.layers.ReLU(name="relu", dtype=torso_policy())]


class ResidualBlock(tf.keras.layers.Layer):
    """x + convolution(relu(convolution(relu(x)))), 3x3 each, of unchanged shape."""

    def __init__(self, filters: int, name: str):
        super().__init__(name=name, autocast=False)
        self._convolutions = [
            tf.keras.layers.Conv2D(
                filters, 3, padding="same", name=f"convolution_{i}", dtype=torso_policy()
            )
            for i in range(2)
        ]

    def call(self, features):
        residual = features
        for convolution in self._convolutions:
            residual = convolution(tf.nn.relu(residual))
        return features + residual
