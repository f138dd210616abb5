"""What environments return, compared with what their spaces promise.

Each single environment is wrapped in `checked_env`, in the process that steps it: vectorisation
casts to the space's dtype, and its shared memory takes any shape of the right size. Whether
numbers are finite is asked of all N environments at once, in `compared`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from tfdrl.environments.batched import BatchedEnvironment
from tfdrl.errors import ConfigurationError, TfdrlError
from tfdrl.types import ArraySpec, Nest, TimeSteps, map_specs

_STEP = "5 values: observation, reward, terminated, truncated, info"
_RESET = "2 values: observation, info"
#: Kinds of dtypes that are numbers: bools, integers, floats.
_KINDS = "biuf"
_NUMBERS = (float, int, np.floating, np.integer, np.bool_)


class MisfitError(ConfigurationError):
    """What an environment returned does not fit its space, and would not after a restart."""


class NotFiniteError(TfdrlError):
    """An environment returned NaN or an infinite number."""


def checked(environment: BatchedEnvironment, steps: TimeSteps) -> TimeSteps:
    """The steps that `environment` has just made, compared unless it has done so itself.

    Raises as `compared`.
    """
    return steps if environment.is_checked else compared(environment, steps)


def compared(environment: BatchedEnvironment, steps: TimeSteps) -> TimeSteps:
    """The steps of N environments, if they are of the specs and all their numbers are finite.

    Raises:
      MisfitError: the reward or an observation has another shape or dtype.
      NotFiniteError: one of their numbers is NaN or infinite.
    """
    require_finite(_name(environment), steps.reward, environment.num_envs)
    require_specs(environment, steps.observation)
    return steps


def require_specs(environment: BatchedEnvironment, observation: Nest) -> None:
    """Raises MisfitError or NotFiniteError unless N observations are of the specs, and finite."""
    name, num_envs = _name(environment), environment.num_envs

    def compare(spec: ArraySpec, leaf: np.ndarray) -> None:
        if leaf.shape != (num_envs, *spec.shape) or leaf.dtype != spec.dtype:
            expected = f"{spec.dtype}{[num_envs, *spec.shape]}, its spec"
            raise misfit(name, f"the {spec.name or 'observation'} {described(leaf)}", expected)
        if spec.dtype.kind == "f":
            is_finite = np.isfinite(leaf)
            if np.count_nonzero(is_finite) != leaf.size:
                raise _not_finite(name, spec.name or "observation", leaf, is_finite)

    map_specs(compare, environment.observation_spec, observation)


def require_finite(name: str, reward: np.ndarray, num_envs: int) -> None:
    """Raises MisfitError or NotFiniteError unless `reward` is N finite numbers of float32.

    Args:
      name: of the environment.
      reward: <float>[N].
      num_envs: N.
    """
    if reward.shape != (num_envs,):
        raise misfit(name, f"the reward {described(reward)}", "one number for each environment")
    is_finite = np.isfinite(reward.astype(np.float32, copy=False))
    if np.count_nonzero(is_finite) != num_envs:
        raise _not_finite(name, "reward", reward, is_finite)


def checked_env(env: gymnasium.Env, infos: Collection[str] = ()) -> gymnasium.Env:
    """`env` whose returns are compared with its spaces.

    How many values there are is asked below all wrappers, which could not unpack another number.

    Args:
      env: with all its wrappers.
      infos: keys of the infos that somebody reads; all are kept where one of these is missing.
        Others are left out: batching and sending them takes time, and fails for arrays whose
        shapes differ between environments.
    """
    innermost = env
    while isinstance(innermost, gymnasium.Wrapper) and isinstance(innermost.env, gymnasium.Wrapper):
        innermost = innermost.env
    if isinstance(innermost, gymnasium.Wrapper):
        innermost.env = _CountedReturns(innermost.env)
    else:
        env = _CountedReturns(env)
    return _CheckedReturns(env, infos)


class _CountedReturns(gymnasium.Wrapper):
    """Its `reset` returns 2 values and its `step` 5, or they raise MisfitError."""

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        returned = self.env.reset(seed=seed, options=options)
        if not isinstance(returned, (tuple, list)) or len(returned) != 2:
            raise misfit(_env_name(self), _values(returned), _RESET, "reset()")
        return returned

    def step(self, action: Any) -> Any:
        returned = self.env.step(action)
        if not isinstance(returned, (tuple, list)) or len(returned) != 5:
            raise misfit(_env_name(self), _values(returned), _STEP, "step()")
        return returned


class _CheckedReturns(gymnasium.Wrapper):
    """Returns arrays of its space's shapes and dtypes, floats and bools, or raises MisfitError."""

    def __init__(self, env: gymnasium.Env, infos: Collection[str]):
        super().__init__(env)
        self._infos = tuple(infos)
        self._observation = observation_fitter(env.observation_space, _env_name(env))

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> Any:
        observation, info = self.env.reset(seed=seed, options=options)
        return self._observation(observation), self._kept(info, "reset()")

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = self.env.step(action)
        info = self._kept(info, "step()")
        if not isinstance(reward, _NUMBERS):
            reward = one_number(reward, _env_name(self))
        if not isinstance(terminated, (bool, np.bool_)):
            terminated = self._flag(terminated, "terminated")
        if not isinstance(truncated, (bool, np.bool_)):
            truncated = self._flag(truncated, "truncated")
        return self._observation(observation), reward, terminated, truncated, info

    def _kept(self, info: Any, call: str) -> dict[str, Any]:
        if not isinstance(info, Mapping):
            raise misfit(_env_name(self), f"the info {described(info)}", "a dict", call)
        if all(key in info for key in self._infos):
            return {key: info[key] for key in self._infos}
        return info  # who misses a key says which there are

    def _flag(self, value: Any, name: str) -> bool:
        found = _array(value)
        if found.size != 1 or found.dtype.kind not in _KINDS or found.item() not in (0, 1):
            raise misfit(_env_name(self), f"{name} = {described(value)}", "True or False", "step()")
        return bool(found.item())


def one_number(reward: Any, name: str) -> float:
    """A reward as a float: a number of any kind, or an array of one. Raises MisfitError."""
    found = _array(reward)
    if found.size != 1 or found.dtype.kind not in _KINDS:
        raise misfit(name, f"the reward {described(reward)}", "one finite number", "step()")
    return float(found.item())


def observation_fitter(
    space: spaces.Space | Nest, name: str, where: str = "observation"
) -> Callable[[Any], Nest]:
    """The function from one observation to arrays of the shapes and dtypes of a space, or of specs.

    It raises MisfitError for an observation of another structure or shape, for floats where there
    should be integers, and for integers that the dtype or the numbering does not have.
    """
    if isinstance(space, (spaces.Dict, dict)):
        return _dict_fitter(space, name, where)
    if isinstance(space, spaces.Tuple) or type(space) is tuple:
        return _tuple_fitter(space, name, where)
    if space.shape is None:
        return lambda value: value  # such spaces are refused elsewhere
    has = None
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete)):
        has = space.contains
    elif isinstance(space, ArraySpec) and space.categorical:
        has = functools.partial(_is_within, space)

    def fit(value: Any) -> np.ndarray:
        found = fitted(value, space, name, where)
        if has is not None and not has(found):
            raise misfit(name, f"the {where} {described(value)}", f"a value of {space}")
        return found

    return fit


def fitted(value: Any, space: spaces.Space | ArraySpec, name: str, where: str) -> np.ndarray:
    """`value` as an array of the shape and dtype of `space`; MisfitError if that would change it.

    Floats of another precision are no change, and integers are floats.
    """
    shape, dtype = space.shape, space.dtype
    if type(value) is np.ndarray and value.shape == shape and value.dtype == dtype:
        return value
    found = _array(value)
    if found.shape == shape and found.dtype.kind in _KINDS:
        with np.errstate(all="ignore"):
            cast = found.astype(dtype)
        if dtype.kind == "f" or (found.dtype.kind != "f" and np.array_equal(cast, found)):
            return cast
    came = f"the {where} {described(value)}"
    raise misfit(name, came, f"{dtype}{list(shape)} of {space}")


def misfit(name: str, came: str, expected: str, call: str = "") -> MisfitError:
    """The sentence on what came from an environment in place of what was expected."""
    return MisfitError(
        f"the environment {name} returned {came}{f' from {call}' if call else ''}; expected "
        f"{expected}"
    )


def described(value: Any) -> str:
    """An array by dtype and shape, with its numbers if they are few; anything else by its class."""
    if isinstance(value, (np.ndarray, np.generic)):
        numbers = f" = {np.asarray(value).tolist()}" if value.size <= 4 else ""
        return f"{value.dtype}{list(value.shape)}{numbers}"
    words = repr(value)
    return f"{words if len(words) <= 60 else words[:60] + '...'} ({type(value).__name__})"


def _is_within(spec: ArraySpec, found: np.ndarray) -> bool:
    return bool(np.all((found >= spec.minimum) & (found <= spec.maximum)))


def _dict_fitter(space: spaces.Dict | dict, name: str, where: str) -> Callable[[Any], dict]:
    fitters = {k: observation_fitter(sub, name, f"{where}/{k}") for k, sub in space.items()}

    def fit(value: Any) -> dict:
        missing = [k for k in fitters if not isinstance(value, Mapping) or k not in value]
        if missing:
            came = f"the {where} {_keys(value)}"
            raise misfit(name, came, f"a dict with the keys {sorted(fitters, key=str)}")
        return {k: fit_one(value[k]) for k, fit_one in fitters.items()}

    return fit


def _tuple_fitter(space: spaces.Tuple | tuple, name: str, where: str) -> Callable[[Any], tuple]:
    fitters = [observation_fitter(sub, name, f"{where}/{i}") for i, sub in enumerate(space)]

    def fit(value: Any) -> tuple:
        if not isinstance(value, (tuple, list)) or len(value) != len(fitters):
            raise misfit(name, f"the {where} {described(value)}", f"a tuple of {len(fitters)}")
        return tuple(fit_one(one) for fit_one, one in zip(fitters, value))

    return fit


def _keys(value: Any) -> str:
    is_dict = isinstance(value, Mapping)
    return f"with the keys {sorted(value, key=str)}" if is_dict else described(value)


def _array(value: Any) -> np.ndarray:
    try:
        return np.asarray(value)
    except (ValueError, TypeError):  # ragged lists, tensors of another device
        return np.asarray(None)


def _values(returned: Any) -> str:
    if not isinstance(returned, (tuple, list)):
        return described(returned)
    old = " (as before Gym 0.26)" if len(returned) == 4 else ""
    return f"{len(returned)} values{old}"


def _not_finite(name: str, where: str, found: np.ndarray, is_finite: np.ndarray) -> NotFiniteError:
    first = tuple(int(i) for i in np.argwhere(~is_finite)[0])
    place = f" at {list(first[1:])}" if len(first) > 1 else ""
    return NotFiniteError(
        f"the environment {name} returned {found[first]} in the {where}{place} of environment "
        f"{first[0]} of {len(found)}; expected finite numbers of float32: the fault is its own"
    )


def _name(environment: BatchedEnvironment) -> str:
    return environment.name or type(environment).__name__


def _env_name(env: gymnasium.Env) -> str:
    return env.spec.id if env.spec else type(env.unwrapped).__name__
