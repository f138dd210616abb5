"""The wrappers of an environment, and gin's bindings where a process of its own makes it."""

from __future__ import annotations

import contextlib
import importlib
import traceback
from collections.abc import Callable, Sequence

import gin
import gymnasium

from tfdrl.configuration import source
from tfdrl.environments.shown_rewards import check_task, check_training
from tfdrl.errors import ConfigurationError

_OF_TRAINING = "training_wrappers"
_FACTORY = "tfdrl.environments.registry.gym_environment"

#: Scopes that a process of environments never leaves.
_ENTERED = contextlib.ExitStack()

Wrapper = Callable[[gymnasium.Env], gymnasium.Env]


class Wrapping:
    """All wrappers as one, which can be sent to another process.

    With it go gin's bindings: a process that gets an environment's constructor and its wrappers
    would make them with their defaults. Wrappers that gin has given are sent by name, since the
    classes that gin makes cannot be pickled.

    Args:
      wrappers: callables env -> env of the task, applied in this order.
      training_wrappers: applied after them where `training`.
      training: whether rewards are for learning; they are shown otherwise.
    """

    def __init__(
        self, wrappers: Sequence[Wrapper], training_wrappers: Sequence[Wrapper], training: bool
    ):
        given = {"wrappers": wrappers, _OF_TRAINING: training_wrappers}
        for name, found in given.items():
            if not isinstance(found, (tuple, list)):
                raise ConfigurationError(
                    f"gym_environment.{name} = {found!r} must be a tuple, such as (@TimeLimit,)"
                )
        self._wrappers = {name: tuple(found) for name, found in given.items()}
        self._training = training

    def __call__(self, env: gymnasium.Env) -> gymnasium.Env:
        task = self._wrapped(env, "wrappers")
        check_task(task, env, is_shown=not self._training)
        if not self._training:
            return task
        trained = self._wrapped(task, _OF_TRAINING)
        check_training(trained, task)
        return trained

    def _wrapped(self, env: gymnasium.Env, argument: str) -> gymnasium.Env:
        for wrapper in self._wrappers[argument]:
            try:
                env = wrapper(env)
            except Exception as error:  # whatever a wrapper raises
                raise _refusal(argument, wrapper, env, error) from error
        return env

    def __reduce__(self) -> tuple:
        sent = {
            name: None if _are_bound(name, wrappers) else wrappers
            for name, wrappers in self._wrappers.items()
        }
        return _received, (*_bindings(), gin.current_scope(), sent, self._training)


def _refusal(
    argument: str, wrapper: Wrapper, env: gymnasium.Env, error: Exception
) -> ConfigurationError:
    name = getattr(wrapper, "__name__", repr(wrapper))
    last = traceback.extract_tb(error.__traceback__)[-1]
    said = str(error).partition("\n")[0].strip()  # gin adds lines
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return ConfigurationError(
        f"gym_environment.{argument}: {name} cannot wrap {env}: {what} "
        f"(at {last.filename}:{last.lineno})"
    )


def _bound(argument: str) -> tuple[Wrapper, ...]:
    """What gin gives `gym_environment` in the present scope."""
    return tuple(gin.get_bindings(_FACTORY).get(argument) or ())


def _are_bound(argument: str, wrappers: tuple[Wrapper, ...]) -> bool:
    bound = _bound(argument)
    return len(bound) == len(wrappers) and all(a is b for a, b in zip(bound, wrappers))


def _bindings() -> tuple[list[str], str]:
    """Modules that do not load TensorFlow, and all bindings, of which some may need others."""
    lines = gin.config_str().splitlines()
    imports = [line.partition(" ")[2] for line in lines if line.startswith("import ")]
    light = [module for module in imports if source.loads_tensorflow(module) is None]
    return light, "\n".join(line for line in lines if not line.startswith("import "))


def _received(
    modules: list[str],
    bindings: str,
    scope: list[str],
    sent: dict[str, tuple[Wrapper, ...] | None],
    training: bool,
) -> Wrapping:
    """What a `Wrapping` is in the process that has received it, which stays in gin's scope."""
    for module in ("tfdrl.environments.gymnasium_wrappers", *modules):
        importlib.import_module(module)
    gin.parse_config(bindings, skip_unknown=True)
    _ENTERED.enter_context(gin.config_scope(scope))
    wrappers = {name: _bound(name) if found is None else found for name, found in sent.items()}
    return Wrapping(**wrappers, training=training)
