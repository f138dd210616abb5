"""Gymnasium spaces as `ArraySpec` nests, and batched values between the two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces

from tfdrl.errors import ConfigurationError
from tfdrl.types import ArraySpec, Nest, map_specs

_OBSERVATION_SPACES = "Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple"
_ACTION_SPACES = "Box of floats, Discrete or MultiDiscrete"
#: TensorFlow lacks operations for some types of numbers, which become these; networks calculate
#: in float32 anyway.
_DTYPES = {
    **dict.fromkeys(("float64", "float128"), "float32"),
    "bool": "uint8",
    **dict.fromkeys(("int8", "int16", "uint16"), "int32"),
    **dict.fromkeys(("uint32", "uint64"), "int64"),
}


def observation_spec(space: spaces.Space, name: str = "observation") -> Nest:
    """The spec of an observation space, of `supported_dtype`s.

    Discrete and MultiDiscrete ones are `categorical`: every number names something.

    Raises ConfigurationError for any space but Box, Discrete, MultiDiscrete, MultiBinary and
    Dict or Tuple of them, and for arrays without elements. Parts of a Dict that have none, such as
    a goal that this task does not have, are left out.
    """
    if isinstance(space, (spaces.Dict, spaces.Tuple)) and not len(space.spaces):
        raise ConfigurationError(f"{name}: the observation space {space} is empty")
    if isinstance(space, spaces.Dict):
        filled = {key: sub for key, sub in space.items() if not _is_void(sub)}
        parts = filled or space.spaces
        return {key: observation_spec(sub, f"{name}/{key}") for key, sub in parts.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(observation_spec(sub, f"{name}/{i}") for i, sub in enumerate(space))
    if _is_void(space):
        raise ConfigurationError(
            f"{name}: the observation space {space} has no elements; leave it out, for instance "
            "through a gymnasium.ObservationWrapper in `wrappers`"
        )
    if isinstance(space, spaces.Box):
        return _box_spec(space, name)
    if isinstance(space, spaces.MultiBinary):
        return ArraySpec(space.shape, np.dtype(np.uint8), 0, 1, name)
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        dtype = supported_dtype(space.dtype)
        count = space.n if isinstance(space, spaces.Discrete) else space.nvec
        ends = np.asarray(space.start, np.int64), np.asarray(space.start + count - 1, np.int64)
        low, high = (finite_bounds(end, dtype) for end in ends)
        return ArraySpec(space.shape, dtype, low, high, name, categorical=True)
    raise ConfigurationError(
        f"{name}: the observation space {space} is not supported; use {_OBSERVATION_SPACES}, "
        "for instance through a gymnasium.ObservationWrapper in `wrappers`"
    )


def action_spec(space: spaces.Space, name: str = "action") -> ArraySpec:
    """The spec of an action space: float32, or int32 that starts at 0.

    A Box without a bound on one side, or whose range is no number, counts as unbounded: nothing
    can be scaled to it. The environment gets actions that are clipped to it, all the same.

    Raises ConfigurationError for any space but Box of floats, Discrete and MultiDiscrete, and for
    one without elements or with more values than int32 has.
    """
    if _is_void(space):
        raise ConfigurationError(f"{name}: the action space {space} has no elements: nothing to do")
    if _most_values(space) > np.iinfo(np.int32).max:
        raise ConfigurationError(
            f"{name}: the action space {space} has more values than int32; give it fewer, for "
            "instance through a gymnasium.ActionWrapper in `wrappers`"
        )
    if isinstance(space, spaces.Box) and space.dtype.kind == "f":
        spec = _box_spec(space, name)
        dtype = np.dtype(np.float32)
        return (
            spec._replace(dtype=dtype)
            if _is_range(spec)
            else ArraySpec(spec.shape, dtype, name=name)
        )
    if isinstance(space, spaces.Discrete):
        return ArraySpec((), np.dtype(np.int32), 0, int(space.n) - 1, name)
    if isinstance(space, spaces.MultiDiscrete):
        maximum = (space.nvec - 1).astype(np.int32)
        return ArraySpec(space.shape, np.dtype(np.int32), 0, maximum, name)
    raise ConfigurationError(
        f"{name}: the action space {space} is not supported; use {_ACTION_SPACES}, "
        "for instance through a gymnasium.ActionWrapper in `wrappers`"
    )


def supported_dtype(dtype: np.dtype) -> np.dtype:
    """The type in which observations of `dtype` are given to TensorFlow, stored and sent."""
    return np.dtype(_DTYPES.get(dtype.name, dtype))


def to_observation(specs: Nest, observation: Nest) -> Nest:
    """A batched observation as C-ordered arrays of the specs' dtypes, always copied."""
    # Gymnasium's vector environments may write their next observation into the same memory.
    return map_specs(
        lambda spec, value: np.array(value, dtype=spec.dtype, order="C"), specs, observation
    )


def finite_bounds(bound: Any, dtype: np.dtype) -> Any:
    """`bound` cut to what `dtype` can hold; a scalar where all elements are equal."""
    limits = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    bound = np.clip(bound, limits.min, limits.max).astype(dtype)
    return bound.flat[0] if bound.size and np.all(bound == bound.flat[0]) else bound


def action_converter(space: spaces.Space) -> Callable[[Any], np.ndarray]:
    """The function from our batched actions to those of an environment's action space.

    Continuous actions are clipped to the space's bounds: a Gaussian policy has none.
    """
    dtype = space.dtype
    if isinstance(space, spaces.Box):
        return lambda action: np.clip(action, space.low, space.high).astype(dtype)
    start = getattr(space, "start", 0)
    if np.any(start):
        return lambda action: np.add(action, start, dtype=dtype)
    return lambda action: np.asarray(action, dtype=dtype)


def _is_void(space: spaces.Space) -> bool:
    is_nest = isinstance(space, (spaces.Dict, spaces.Tuple))
    return not is_nest and space.shape is not None and not np.prod(space.shape, dtype=int)


def _most_values(space: spaces.Space) -> int:
    """Of a discrete action, or of the largest part of one; 0 of others."""
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    return int(space.nvec.max()) if isinstance(space, spaces.MultiDiscrete) else 0


def _is_range(spec: ArraySpec) -> bool:
    """Whether there are bounds that an agent can scale to."""
    if spec.minimum is None:
        return False
    largest = np.finfo(spec.dtype).max
    ends = np.stack(np.broadcast_arrays(spec.minimum, spec.maximum)).astype(np.float64)
    return bool(np.all(np.abs(ends) < largest) and np.all(ends[1] - ends[0] < largest))


def _box_spec(space: spaces.Box, name: str) -> ArraySpec:
    dtype = supported_dtype(space.dtype)
    if space.dtype == np.uint64 and np.any(space.high > np.iinfo(dtype).max):
        raise ConfigurationError(
            f"{name}: the observation space {space} has values that int64 has not; give it a lower "
            "`high`, or make it another type in a gymnasium.ObservationWrapper in `wrappers`"
        )
    if dtype.kind == "f" and np.all(np.isinf(space.low)) and np.all(np.isinf(space.high)):
        return ArraySpec(space.shape, dtype, name=name)
    return ArraySpec(
        space.shape, dtype, finite_bounds(space.low, dtype), finite_bounds(space.high, dtype), name
    )
