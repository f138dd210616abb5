"""Settings as Python programs give them, as lines of gin."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Union

from tfdrl.errors import ConfigurationError

Bindings = Union[Iterable[str], Mapping[str, Any]]


def lines(bindings: Bindings) -> list[str]:
    """Lines such as "apex.actors = 8".

    Args:
      bindings: such lines, or the values by name: numbers, texts, None, booleans, and lists,
        tuples and dicts of these. A text that begins with @ or % is gin's reference or macro.

    Raises ConfigurationError for a value that gin cannot write.
    """
    if isinstance(bindings, Mapping):
        return [f"{name} = {_value(name, value)}" for name, value in bindings.items()]
    if isinstance(bindings, (str, bytes)) or not isinstance(bindings, Iterable):
        raise ConfigurationError(
            f"bindings={bindings!r} must be a list of lines such as ['apex.actors = 8'], or a dict "
            "such as {'apex.actors': 8}"
        )
    return list(map(str, bindings))


def files(gin_file: str | os.PathLike | Iterable[str | os.PathLike]) -> list[str]:
    """The names of one gin file or of several. Raises ConfigurationError for anything else."""
    is_one = isinstance(gin_file, (str, os.PathLike)) or not isinstance(gin_file, Iterable)
    names = [gin_file] if is_one else list(gin_file)
    if not names or not all(isinstance(name, (str, os.PathLike)) and str(name) for name in names):
        raise ConfigurationError(f"gin_file={gin_file!r} must be a file's path or name, or several")
    return [os.fspath(name) for name in names]


def _value(name: str, value: Any) -> str:
    if hasattr(value, "item") and getattr(value, "shape", None) == ():  # NumPy's numbers
        value = value.item()
    if isinstance(value, str) and value[:1] in ("@", "%"):
        return value
    if value is None or isinstance(value, (bool, int, float, str)):
        return repr(value)
    if isinstance(value, dict):
        inner = (f"{_value(name, k)}: {_value(name, v)}" for k, v in value.items())
        return f"{{{', '.join(inner)}}}"
    if isinstance(value, (list, tuple)):
        inner = [_value(name, part) for part in value]
        comma = "," if isinstance(value, tuple) and len(value) == 1 else ""
        return (
            f"[{', '.join(inner)}]" if isinstance(value, list) else f"({', '.join(inner)}{comma})"
        )
    raise ConfigurationError(
        f"bindings: {name} = {value!r} cannot be written in gin; give a number, a text, a list, or "
        "what is configurable by its name, such as '@MyNetwork' or '@MyNetwork()'"
    )
