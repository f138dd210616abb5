"""Between batched environments and TF-Agents: the one environment module that loads TensorFlow."""

from __future__ import annotations

import inspect
import math
from typing import Any, Callable

import gin
import numpy as np
import tensorflow as tf
from tf_agents.environments import py_environment as tfa_environment
from tf_agents.specs import array_spec, tensor_spec
from tf_agents.trajectories import time_step as ts

from tfdrl.environments import returned
from tfdrl.environments.action_masks import ActionMasks
from tfdrl.environments.batched import BatchedEnvironment, EpisodeLog, picture
from tfdrl.environments.closing import close_bounded
from tfdrl.environments.spaces import finite_bounds, supported_dtype
from tfdrl.environments.stated_returns import return_range
from tfdrl.environments.vectorized import environment_seeds
from tfdrl.errors import ConfigurationError
from tfdrl.types import ArraySpec, Episodes, Nest, TimeSteps, map_specs


class CategoricalTensorSpec(tensor_spec.BoundedTensorSpec):
    """Bounded integers that name something and measure nothing; networks see them one-hot."""

    categorical = True

    def __reduce__(self):
        return type(self), (self.shape, self.dtype, self.minimum, self.maximum, self.name)


def to_tf_specs(specs: Nest) -> Nest:
    """A nest of `ArraySpec` as a nest of `TensorSpec` and `BoundedTensorSpec`."""
    return map_specs(_to_tensor_spec, specs)


def time_step_spec(observation_spec: Nest) -> ts.TimeStep:
    """The `TimeStep` spec (of tensors) for a nest of `ArraySpec` of observations."""
    return ts.time_step_spec(to_tf_specs(observation_spec))


class BatchedPyEnvironment(tfa_environment.PyEnvironment):
    """A `BatchedEnvironment` as a batched TF-Agents environment.

    Each of the N environments resets by itself on the step after its LAST step.
    """

    def __init__(self, environment: BatchedEnvironment):
        super().__init__()
        self._environment = environment
        self._observation_spec = map_specs(_to_array_spec, environment.observation_spec)
        self._action_spec = map_specs(_to_array_spec, environment.action_spec)

    @property
    def batched(self) -> bool:
        return True

    @property
    def batch_size(self) -> int:
        return self._environment.num_envs

    @property
    def environment(self) -> BatchedEnvironment:
        """The environment underneath; its `take_episodes` has the raw returns."""
        return self._environment

    def observation_spec(self) -> Nest:
        return self._observation_spec

    def action_spec(self) -> Nest:
        return self._action_spec

    def close(self) -> None:
        self._environment.close()

    def _reset(self) -> ts.TimeStep:
        return ts.TimeStep(**self._environment.reset()._asdict())

    def _step(self, action: Nest) -> ts.TimeStep:
        return ts.TimeStep(**self._environment.step(action)._asdict())


class UnbatchedPyEnvironments(BatchedEnvironment):
    """N instances of a user's TF-Agents `PyEnvironment`, stepped one after the other.

    Rewards and discounts are the environments' own. float64 becomes float32, and discrete
    actions start at 0 here whatever the minimum of the environments' own spec.

    Raises:
      ConfigurationError: an environment is itself batched, or its rewards are not scalars. `reset`
        and `step`: MisfitError or NotFiniteError, see module environments.returned.
    """

    is_checked = True

    def __init__(
        self, environments: list[tfa_environment.PyEnvironment], action_mask: str | None = None
    ):
        for environment in environments:
            _check_single(environment)
        self._environments = environments
        self.num_envs, self.name = len(environments), type(environments[0]).__name__
        specs = _from_array_specs(environments[0].observation_spec())
        self.observation_spec = _map_nest(_categorical, specs)
        self._fitted = returned.observation_fitter(self.observation_spec, self.name)
        self.action_spec = _map_nest(_zero_based, _from_array_specs(environments[0].action_spec()))
        self._env_action_spec = environments[0].action_spec()
        rewards = environments[0].reward_spec()
        if isinstance(rewards, array_spec.BoundedArraySpec):
            bounds = float(rewards.minimum), float(rewards.maximum)
            self.return_range = return_range(bounds, math.inf)
        self._arrays_spec = self.observation_spec
        self.action_mask, self._masks = action_mask, None
        if action_mask is not None:
            self._masks = ActionMasks(
                action_mask,
                type(environments[0]).__name__,
                "py_environment.action_mask",
                self.observation_spec,
                self.action_spec,
            )
            self.observation_spec = self._masks.observation_spec
        self._log = EpisodeLog(self.num_envs)
        self._was_last = np.zeros(self.num_envs, bool)

    def reset(self) -> TimeSteps:
        self._log.restart()
        self._was_last[:] = False
        return self._stack([environment.reset() for environment in self._environments])

    def step(self, action: Nest) -> TimeSteps:
        actions = self._environment_actions(action)
        steps = self._stack(
            [
                environment.reset() if was_last else environment.step(one)
                for environment, was_last, one in zip(self._environments, self._was_last, actions)
            ]
        )
        self._was_last = steps.step_type == ts.StepType.LAST
        self._log.add(steps.reward, self._was_last)
        return steps

    def take_episodes(self) -> Episodes:
        return self._log.take()

    def render(self) -> np.ndarray:
        try:
            frame = self._environments[0].render("rgb_array")
        except NotImplementedError:
            raise ConfigurationError(f"{self.name} cannot be drawn: it has no render()") from None
        return picture(frame, self.name)

    def close(self) -> None:
        for environment in self._environments:
            close_bounded(environment.close)

    def _environment_actions(self, action: Nest) -> list[Nest]:
        specs = self._env_action_spec
        batched = map(_env_action, tf.nest.flatten(specs), tf.nest.flatten(action))
        return [tf.nest.pack_sequence_as(specs, leaves) for leaves in zip(*batched)]

    def _stack(self, steps: list[ts.TimeStep]) -> TimeSteps:
        for step in steps:
            if not isinstance(step, ts.TimeStep):
                raise returned.misfit(self.name, returned.described(step), "a tf_agents TimeStep")
        step_type = np.array([step.step_type for step in steps], np.int32)
        discount = np.array([step.discount for step in steps], np.float32)
        rewards = [returned.one_number(step.reward, self.name) for step in steps]
        observation = map_specs(
            lambda spec, *values: np.stack(values),
            self._arrays_spec,
            *(self._fitted(step.observation) for step in steps),
        )
        if self._masks is not None:
            is_over = (step_type == ts.StepType.LAST) & (discount == 0.0)
            observation = self._masks(observation, {}, is_over)
        found = TimeSteps(step_type, np.array(rewards, np.float32), discount, observation)
        return returned.compared(self, found)


@gin.configurable
def py_environment(
    num_envs: int,
    training: bool,
    seed: int,
    constructor: Callable[..., tfa_environment.PyEnvironment] = gin.REQUIRED,
    action_mask: str | None = None,
    render: bool = False,
) -> BatchedEnvironment:
    """N environments of a user's own TF-Agents `PyEnvironment` class.

    Args:
      num_envs: how many are stepped at once.
      training: without effect; a user's class decides about its rewards itself.
      seed: each environment gets a seed of its own derived from it, if the constructor has a
        parameter `seed`.
      constructor: the class, or a function that returns an instance; called N times.
      action_mask: key of the mask of allowed actions in the Dict observation; None: every action
        is allowed. See docs/action_masks.md.
      render: without effect; a class with `render` can always be drawn.

    Raises:
      ConfigurationError: what the constructor returns is not an unbatched PyEnvironment, or has
        no such mask.
    """
    if num_envs < 1:
        raise ConfigurationError(f"num_envs={num_envs}: at least 1 environment is needed")
    takes_seed = _takes_seed(constructor)
    environments = [
        constructor(seed=environment_seed) if takes_seed else constructor()
        for environment_seed in environment_seeds(seed, num_envs)
    ]
    return UnbatchedPyEnvironments(environments, action_mask)


def _takes_seed(constructor: Callable) -> bool:
    # gin's decoration hides the signature of a class, but not that of its __init__.
    function = constructor.__init__ if inspect.isclass(constructor) else constructor
    return "seed" in inspect.signature(function).parameters


def _check_single(environment: Any) -> None:
    if not isinstance(environment, tfa_environment.PyEnvironment):
        raise ConfigurationError(
            f"py_environment.constructor made a {type(environment).__name__}; "
            "it must make a tf_agents.environments.PyEnvironment"
        )
    if environment.batched:
        raise ConfigurationError(
            f"{type(environment).__name__} is batched; py_environment batches single "
            "environments itself, so `batched` must be False"
        )
    if environment.reward_spec().shape != ():
        raise ConfigurationError(
            f"{type(environment).__name__} has rewards {environment.reward_spec()}; "
            "tfdrl needs one scalar reward per step"
        )


def _to_tensor_spec(spec: ArraySpec) -> tf.TensorSpec:
    found = tensor_spec.from_spec(_to_array_spec(spec))
    if not spec.categorical:
        return found
    return CategoricalTensorSpec(found.shape, found.dtype, found.minimum, found.maximum, found.name)


def _to_array_spec(spec: ArraySpec) -> array_spec.ArraySpec:
    name = spec.name or None
    if spec.minimum is None and spec.maximum is None:
        return array_spec.ArraySpec(spec.shape, spec.dtype, name)
    # TF-Agents samples specs to build networks, and wants both bounds of one shape.
    bounds = np.broadcast_arrays(spec.minimum, spec.maximum)
    return array_spec.BoundedArraySpec(spec.shape, spec.dtype, *bounds, name)


def _map_nest(function: Callable[[Any], Any], nest: Nest) -> Nest:
    """`function` at every leaf; lists become tuples. Spec classes are leaves."""
    if isinstance(nest, dict):
        return {key: _map_nest(function, value) for key, value in nest.items()}
    if isinstance(nest, (list, tuple)) and not isinstance(nest, ArraySpec):
        return tuple(_map_nest(function, value) for value in nest)
    return function(nest)


def _from_array_specs(specs: Nest) -> Nest:
    def convert(spec: array_spec.ArraySpec) -> ArraySpec:
        dtype = supported_dtype(np.dtype(spec.dtype))
        bounds = (None, None)
        if isinstance(spec, array_spec.BoundedArraySpec):
            bounds = (finite_bounds(spec.minimum, dtype), finite_bounds(spec.maximum, dtype))
        return ArraySpec(tuple(spec.shape), dtype, *bounds, spec.name or "")

    return _map_nest(convert, specs)


def _categorical(spec: ArraySpec) -> ArraySpec:
    # Of arrays TF-Agents' specs do not say whether their integers count or name.
    return spec._replace(categorical=spec.is_discrete and not spec.shape)


def _zero_based(spec: ArraySpec) -> ArraySpec:
    if not spec.is_discrete:
        return spec
    maximum = np.subtract(spec.maximum, spec.minimum, dtype=np.int32)
    return spec._replace(dtype=np.dtype(np.int32), minimum=0, maximum=maximum)


def _env_action(spec: array_spec.ArraySpec, action: np.ndarray) -> np.ndarray:
    if isinstance(spec, array_spec.BoundedArraySpec) and np.issubdtype(spec.dtype, np.integer):
        return np.add(action, spec.minimum, dtype=spec.dtype)
    if isinstance(spec, array_spec.BoundedArraySpec):
        action = np.clip(action, spec.minimum, spec.maximum)  # a Gaussian policy has no bounds
    return np.asarray(action, spec.dtype)
