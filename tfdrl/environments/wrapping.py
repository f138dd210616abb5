"""The wrappers of an environment, and gin's bindings where a process of its own makes it."""

from __future__ import annotations

import contextlib
import importlib
import traceback
from collections.abc import Callable, Sequence

import gin
import gymnasium

from tfdrl.configuration import source
from tfdrl.errors import ConfigurationError

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
      wrappers: callables env -> env, applied in this order.
    """

    def __init__(self, wrappers: Sequence[Wrapper]):
        self._wrappers = tuple(wrappers)

    def __call__(self, env: gymnasium.Env) -> gymnasium.Env:
        for wrapper in self._wrappers:
            try:
                env = wrapper(env)
            except Exception as error:  # whatever a wrapper raises
                raise _refusal(wrapper, env, error) from error
        return env

    def __reduce__(self) -> tuple:
        bound = _bound_wrappers()
        are_bound = len(bound) == len(self._wrappers) and all(
            one is other for one, other in zip(bound, self._wrappers)
        )
        sent = None if are_bound else self._wrappers
        return _received, (*_bindings(), gin.current_scope(), sent)


def _refusal(wrapper: Wrapper, env: gymnasium.Env, error: Exception) -> ConfigurationError:
    name = getattr(wrapper, "__name__", repr(wrapper))
    last = traceback.extract_tb(error.__traceback__)[-1]
    said = str(error).partition("\n")[0].strip()  # gin adds lines
    what = f"{type(error).__name__}: {said}" if said else type(error).__name__
    return ConfigurationError(
        f"gym_environment.wrappers: {name} cannot wrap {env}: {what} "
        f"(at {last.filename}:{last.lineno})"
    )


def _bound_wrappers() -> tuple[Wrapper, ...]:
    """What gin gives `gym_environment` in the present scope."""
    return tuple(gin.get_bindings(_FACTORY).get("wrappers") or ())


def _bindings() -> tuple[list[str], str]:
    """Modules that do not load TensorFlow, and all bindings, of which some may need others."""
    lines = gin.config_str().splitlines()
    imports = [line.partition(" ")[2] for line in lines if line.startswith("import ")]
    light = [module for module in imports if source.loads_tensorflow(module) is None]
    return light, "\n".join(line for line in lines if not line.startswith("import "))


def _received(
    modules: list[str], bindings: str, scope: list[str], sent: tuple[Wrapper, ...] | None
) -> Wrapping:
    """What a `Wrapping` is in the process that has received it, which stays in gin's scope."""
    for module in ("tfdrl.environments.gymnasium_wrappers", *modules):
        importlib.import_module(module)
    gin.parse_config(bindings, skip_unknown=True)
    _ENTERED.enter_context(gin.config_scope(scope))
    return Wrapping(_bound_wrappers() if sent is None else sent)
