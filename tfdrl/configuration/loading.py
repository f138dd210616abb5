"""Loading a checked configuration into gin, with TensorFlow or without."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import gin

from tfdrl.configuration import source, values
from tfdrl.configuration.catalogue import catalogue
from tfdrl.configuration.checking import Configuration, Plan, examine
from tfdrl.configuration.statements import did_you_mean
from tfdrl.errors import ConfigurationError


class Unavailable:
    """Stands for a value that this process does not build, because that would load TensorFlow.

    It can be passed on and printed; calling it or looking inside raises ConfigurationError.
    """

    def __init__(self, text: str, reason: str) -> None:
        self._text = text
        self._reason = reason

    def _refusal(self) -> ConfigurationError:
        return ConfigurationError(
            f"{self._text} cannot be used in a process without TensorFlow: {self._reason}"
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise self._refusal()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # copying and inspection ask for what need not exist
            raise AttributeError(name)
        raise self._refusal()

    def __deepcopy__(self, memo: dict) -> Unavailable:
        return self  # gin copies every value that it passes

    def __repr__(self) -> str:
        return f"<{self._text}, not loaded here>"


def load(
    gin_files: Sequence[str] | None,
    gin_bindings: Sequence[str] | None = (),
    *,
    tensorflow: bool,
) -> Configuration:
    """Checks, imports what the configuration names, and binds it in gin, replacing what was bound.

    Without TensorFlow, only modules whose own imports do not reach it are imported (those of the
    gin files' import lines too): bindings to what the others register are left out, and values
    that refer to it become `Unavailable`. gin is left unlocked: roles import their parts
    afterwards, which registers more names.

    Raises:
      ConfigurationError: as `check`; also for what only gin or an import can find out.
    """
    plan = examine(gin_files, gin_bindings)
    gin.clear_config()
    unloaded = _import_modules(plan, tensorflow)
    _Binder(plan, unloaded).bind_all()
    return plan.configuration


def read_ahead() -> None:
    """Reads what every `load` of this process, and of its children, would read first.

    That is the names that can be configured, and which of their modules load TensorFlow.
    """
    found = catalogue()
    for module in {item.module for item in found.configurables if item.module != "gin"}:
        source.loads_tensorflow(module)


def _import_modules(plan: Plan, tensorflow: bool) -> dict[str, str]:
    """Imports what may be; returns the other modules, each with the reason."""
    tops = {module.split(".")[0] for module, _ in plan.imports}
    if not all(source.package_roots(top)[1] for top in tops) and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # console scripts do not look there by themselves
    unloaded: dict[str, str] = {}
    needed = [(module, "") for module in plan.configuration.modules]
    for module, place in [*plan.imports, *needed]:
        reason = None if tensorflow else source.loads_tensorflow(module)
        if reason:
            unloaded[module] = reason
        else:
            _import(module, place)
    return unloaded


def _import(module: str, place: str) -> None:
    if not place:
        place = "this configuration"
    try:
        importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{place} needs {module}, which needs {error.name}, which is not installed"
        ) from error
    except Exception as error:
        if module.split(".")[0] == "tfdrl":
            raise  # a fault of tfdrl's own, not of the configuration
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise ConfigurationError(
            f"{place}: importing {module} failed at {last.filename}:{last.lineno}: "
            f"{type(error).__name__}: {error}"
        ) from error


class _Binder:
    """Puts a plan's bindings into gin, as far as this process has what they name."""

    def __init__(self, plan: Plan, unloaded: dict[str, str]) -> None:
        self._plan = plan
        self._unloaded = unloaded

    def bind_all(self) -> None:
        with self._plain_errors(""):
            for module, _ in self._plan.imports:
                if module not in self._unloaded:
                    gin.parse_config(f"import {module}")  # for gin.config_str
        for (scope, selector, parameter), binding in self._plan.bindings.items():
            if not self._why_missing(selector):
                with self._plain_errors(f"{binding.place}: "):
                    value = values.transform(binding.value, self._loaded)
                    gin.bind_parameter((scope, self._registered(selector), parameter), value)
        with self._plain_errors(""), gin.unlock_config():  # restores what was: unlocked
            gin.finalize()

    def _loaded(self, leaf: Any) -> Any:
        """What gin wants in place of a leaf of a value."""
        if isinstance(leaf, values.Macro):
            return gin.config.parse_value(repr(leaf))
        if not isinstance(leaf, values.Reference):
            return leaf
        reason = self._why_missing(leaf.selector)
        if reason:
            return Unavailable(repr(leaf), reason)
        found = self._plan.catalogue.find(leaf.selector)
        selector = self._registered(found[0].selector if found else leaf.selector)
        return gin.config.parse_value(repr(values.Reference(leaf.scope, selector, leaf.evaluate)))

    def _registered(self, selector: str) -> str:
        """The complete name that gin has for a configurable, if the source tells another one.

        gin takes the module of what an object says of itself, which only an import can tell.
        """
        found = self._plan.catalogue.find(selector)
        try:
            gin.get_configurable(selector)
        except (KeyError, ValueError):
            return found[0].name if found else selector
        return selector

    def _why_missing(self, selector: str) -> str | None:
        """Why this process does not have a configurable; None if it has."""
        found = self._plan.catalogue.find(selector)
        if found:
            return self._unloaded.get(found[0].module)
        if not self._unloaded:
            return None
        try:  # a name that the static check let through
            gin.get_configurable(selector)
        except (KeyError, ValueError):
            return next(iter(self._unloaded.values()))
        return None

    @contextlib.contextmanager
    def _plain_errors(self, prefix: str) -> Iterator[None]:
        """Turns gin's own errors into ConfigurationError, with the nearest names."""
        try:
            yield
        except (ValueError, TypeError, KeyError, RuntimeError, SyntaxError) as error:
            raise ConfigurationError(f"{prefix}{error}{self._hint(str(error))}") from None

    def _hint(self, text: str) -> str:
        """The names near the one that gin's text does not know."""
        if "No configurable matching" not in text or text.count("'") < 2:
            return ""
        known = {item.name for item in self._plan.catalogue.configurables}
        return did_you_mean(text.split("'")[1].strip("@()").rpartition(".")[2], known)
