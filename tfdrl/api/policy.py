"""An exported policy, to act with: one observation in, one action out."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import tensorflow as tf
import tree

from tfdrl.errors import ConfigurationError
from tfdrl.types import FIRST, MID


class Policy:
    """Acts in one environment, greedily.

    A policy with a memory (an LSTM, say) keeps it between calls, until `reset`.

    Args:
      directory: of the SavedModel.

    Raises ConfigurationError if there is none, or it cannot be read.
    """

    def __init__(self, directory: pathlib.Path):
        if not (directory / "saved_model.pb").is_file():
            raise ConfigurationError(
                f"{directory} holds no exported policy (no saved_model.pb); a run writes it after "
                "its first evaluation"
            )
        try:
            self._policy = tf.saved_model.load(str(directory))
        except Exception as error:  # what damaged bytes raise depends on where the damage is
            words = (str(error) or type(error).__name__).splitlines()[0]
            raise ConfigurationError(
                f"the exported policy {directory} cannot be read: {words}"
            ) from error
        (self._step, *_), _ = self._policy.action.concrete_functions[0].structured_input_signature
        self.reset()

    def reset(self) -> None:
        """Forgets what it has seen: the next observation is the first of an episode."""
        self._state, self._is_first = self._policy.get_initial_state(1), True

    def __call__(self, observation: Any, reward: float = 0.0) -> Any:
        """The action for an observation.

        Args:
          observation: one, as the run's environment gives it: an array, or a nest of arrays.
          reward: that came with it, for a policy that is shown it.

        Returns the action, an array or a nest of arrays.

        Raises ConfigurationError for an observation of another shape or nest.
        """
        step = self._step._replace(
            step_type=tf.constant([FIRST if self._is_first else MID], tf.int32),
            reward=tf.constant([reward], tf.float32),
            discount=tf.ones(1, tf.float32),
            observation=self._batch(observation),
        )
        answer = self._policy.action(step, self._state)
        self._state, self._is_first = answer.state, False
        return tree.map_structure(lambda x: x.numpy()[0], answer.action)

    def _batch(self, observation: Any) -> Any:
        """The observation <spec.dtype>[1, ...]."""
        wanted = self._step.observation
        try:
            return tree.map_structure_up_to(wanted, _batched, wanted, observation)
        except (ValueError, TypeError) as error:
            shapes = tree.map_structure(lambda x: f"{x.dtype.name}{x.shape.as_list()[1:]}", wanted)
            words = str(error).splitlines()[0]
            raise ConfigurationError(f"the policy takes an observation {shapes}: {words}") from None


def _batched(spec: tf.TensorSpec, value: Any) -> tf.Tensor:
    array = np.asarray(value, spec.dtype.as_numpy_dtype)[None]
    if not spec.shape.is_compatible_with(array.shape):
        raise ValueError(f"this one has the shape {list(array.shape[1:])}")
    return tf.constant(array)
