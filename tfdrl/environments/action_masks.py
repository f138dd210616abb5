"""Action masks in one form: a part of the observation, checked, wherever an environment has them.

PettingZoo's environments have a mask in a Dict observation, Gymnasium's in `info`. That of an array
of discrete actions (MultiDiscrete) is one array for each element, as Gymnasium's `sample` takes
them, or these side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from tfdrl.errors import ConfigurationError, TfdrlError
from tfdrl.types import ArraySpec, Nest

#: The part of an observation that is no Dict, beside its mask.
_OBSERVATION = "observation"


class ActionMasks:
    """Gives the observations of N environments their masks.

    Args:
      key: of the mask, in the Dict observation or in `info`.
      environment: its name, for error sentences.
      setting: that named the key, for the same.
      observation_spec, action_spec: of one environment.

    Attributes:
      observation_spec: of what `__call__` returns: a dict whose part `key` is <uint8>[A], 1 where
        the action is allowed; of an array of actions those of its elements, side by side. An
        observation that is no Dict is its part "observation".

    Raises:
      ConfigurationError: the action is neither a discrete one nor an array of them, or the
        observation's mask is not one integer or bool for each value.
    """

    def __init__(
        self, key: str, environment: str, setting: str, observation_spec: Nest, action_spec: Nest
    ):
        self._key, self._environment, self._setting = key, environment, setting
        is_discrete = isinstance(action_spec, ArraySpec) and action_spec.is_discrete
        if not is_discrete:
            raise self._error(
                f"its actions are {action_spec}, but a mask allows some of the values of a "
                "Discrete or MultiDiscrete action"
            )
        self._counts = action_spec.element_values
        self._starts = np.cumsum([0, *self._counts[:-1]])
        self._is_dict = isinstance(observation_spec, dict)
        parts = dict(observation_spec) if self._is_dict else {_OBSERVATION: observation_spec}
        self._is_part = self._is_dict and key in parts
        if not parts.keys() - {key}:
            raise self._error("the observation has no other part than the mask")
        if self._is_part:
            self._check_form(parts[key])
        mask = ArraySpec((sum(self._counts),), np.dtype(np.uint8), 0, 1, key)
        self.observation_spec = {**parts, key: mask}

    def __call__(self, observation: Nest, info: Mapping[str, Any], is_over: np.ndarray) -> Nest:
        """The observation, as a dict, with the mask.

        Args:
          observation: nest of [N, ...], as the environments' space is.
          info: of a vector environment; `info[key]` is [N, A] where the observation has no mask,
            or N times the masks of all elements.
          is_over: <bool>[N], environments that have terminated and may allow nothing.

        Raises:
          ConfigurationError: there is no mask, or it has another form.
          TfdrlError: it has other numbers than 0 and 1, or allows nothing, of an element too.
        """
        parts = observation if self._is_dict else {_OBSERVATION: observation}
        is_part = self._is_part
        mask = _side_by_side(parts[self._key], 1) if is_part else self._of_info(info, parts)
        self._check_form(mask[0])
        allowed = mask.astype(bool)
        if not np.array_equal(allowed, mask):
            wrong = mask[allowed != mask][0]
            raise self._fault(f"it has {wrong} among 0 (forbidden) and 1 (allowed)")
        is_possible = np.logical_or.reduceat(allowed, self._starts, axis=1).all(axis=1)
        if not (is_possible | is_over).all():
            raise self._fault("it forbids every action although the episode has not terminated")
        return {**parts, self._key: allowed.view(np.uint8)}

    def _of_info(self, info: Mapping[str, Any], parts: Mapping[str, Any]) -> np.ndarray:
        # A vector environment says by `_key` whose info has the key.
        if self._key not in info or not np.all(info.get(f"_{self._key}", True)):
            found = ", ".join(sorted(str(key) for key in info if not str(key).startswith("_")))
            observation = f"parts {', '.join(map(str, parts))}" if self._is_dict else "no Dict"
            raise self._error(
                f"neither its observation ({observation}) nor its info "
                f"({found or 'empty'}) has that key at every reset and step"
            )
        mask = info[self._key]
        if mask.dtype != object:
            return mask
        for row in mask:  # lists, or tuples
            self._check_form(row)
        return np.stack([_side_by_side(row, axis=0) for row in mask])

    def _check_form(self, one: Any) -> None:
        """Of one environment's mask, or of its spec."""
        is_nested = not isinstance(one, ArraySpec) and isinstance(one, (tuple, list)) and len(one)
        is_nested = is_nested and _shaped(one[0]).shape != ()
        masks = [_shaped(mask) for mask in (one if is_nested else (one,))]
        shapes = [mask.shape for mask in masks]
        fits = shapes == [(sum(self._counts),)] or shapes == [(n,) for n in self._counts]
        if not fits or any(mask.dtype.kind not in "bui" for mask in masks):
            found = ", ".join(f"{mask.dtype}{list(mask.shape)}" for mask in masks)
            raise self._error(f"it is {found}; {self._wanted()} is needed")

    def _wanted(self) -> str:
        if len(self._counts) == 1:
            return f"one integer (int8) or bool for each of the {self._counts[0]} actions"
        return (
            f"one array of {sum(self._counts)} integers (int8) or bools, or a tuple of arrays of "
            f"{', '.join(map(str, self._counts))}, for the values of the action's elements,"
        )

    def _error(self, text: str) -> ConfigurationError:
        return ConfigurationError(self._sentence(text))

    def _fault(self, text: str) -> TfdrlError:
        return TfdrlError(self._sentence(text))

    def _sentence(self, text: str) -> str:
        setting = f"{self._setting} = {self._key!r}"
        return f"{self._environment}: {setting} names its action mask, but {text}"


def _side_by_side(mask: Any, axis: int) -> np.ndarray:
    """The masks of all elements of an action in one array, joined along the `axis` of values."""
    if isinstance(mask, (tuple, list)) and np.ndim(mask[0]) > axis:
        return np.concatenate(mask, axis)
    return np.asarray(mask)


def _shaped(mask: Any) -> ArraySpec | np.ndarray:
    return mask if isinstance(mask, ArraySpec) else np.asarray(mask)
