"""Gin files read into statements, with includes followed, by gin's own parser."""

from __future__ import annotations

import dataclasses
import difflib
import os
import pathlib
import re
import tokenize
from collections.abc import Iterable, Sequence
from typing import Any

from gin import config_parser

from tfdrl.configuration import files, values
from tfdrl.errors import ConfigurationError

#: What bindings of the command line count as in place of a file name.
COMMAND_LINE = "<gin_bindings>"


@dataclasses.dataclass(frozen=True)
class Binding:
    """`scope/selector.parameter = value`; a macro `scope/name = value` has no parameter."""

    scope: str
    selector: str
    parameter: str
    value: Any
    place: str  # "file:line"

    @property
    def is_typed(self) -> bool:
        """Whether the command line has it."""
        return self.place.startswith(COMMAND_LINE)

    @property
    def macro(self) -> str | None:
        """The name of the macro that it defines; None if it defines none."""
        if not self.parameter:
            return f"{self.scope}/{self.selector}" if self.scope else self.selector
        if self.selector in ("macro", "gin.macro") and self.parameter == "value":
            return self.scope
        return None


@dataclasses.dataclass
class Statements:
    """What gin files say, in order.

    Attributes:
      bindings: as written, in order.
      blocks: (selector, place) of `selector:` lines.
      imports: (module, place, text) of import lines.
      files: names of those that were given, without what they include, as `place` has them.
    """

    bindings: list[Binding] = dataclasses.field(default_factory=list)
    blocks: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    imports: list[tuple[str, str, str]] = dataclasses.field(default_factory=list)
    files: list[str] = dataclasses.field(default_factory=list)


class _Delegate(config_parser.ParserDelegate):
    def configurable_reference(self, scoped_configurable_name: str, evaluate: bool):
        return values.Reference.parse(scoped_configurable_name, evaluate)

    def macro(self, macro_name: str):
        return values.Macro(macro_name)


def read(gin_files: Sequence[str], gin_bindings: Sequence[str]) -> Statements:
    """Parses files, then the command line's bindings.

    Raises:
      ConfigurationError: a file is missing, includes itself, or is not gin's syntax.
    """
    statements = Statements()
    for name in gin_files:
        path = files.find_gin_file(name)
        statements.files.append(_short(path))
        _read_file(path, statements, ())
    _read_text("\n".join(gin_bindings), COMMAND_LINE, statements, ())
    return statements


def _read_file(path: pathlib.Path, statements: Statements, above: tuple[pathlib.Path, ...]) -> None:
    if path in above:
        circle = " -> ".join(_short(file) for file in (*above[above.index(path) :], path))
        raise ConfigurationError(f"gin files include each other in a circle: {circle}")
    _read_text(files.read_utf8(path), _short(path), statements, (*above, path))


def _read_text(text: str, name: str, statements: Statements, above: tuple) -> None:
    try:
        for item in config_parser.ConfigParser(text, _Delegate()):
            _add(item, name, statements, above)
    except SyntaxError as error:  # includes IndentationError
        raise ConfigurationError(_explain(error, name, text)) from None
    except tokenize.TokenError as error:
        message, (line, _) = error.args
        raise ConfigurationError(f"{name}:{line}: {message}: is a bracket left open?") from None


def _add(item: Any, name: str, statements: Statements, above: tuple) -> None:
    place = f"{name}:{item.location.line_num}"
    if isinstance(item, config_parser.BindingStatement):
        binding = Binding(item.scope, item.selector, item.arg_name, item.value, place)
        statements.bindings.append(binding)
    elif isinstance(item, config_parser.BlockDeclaration):
        statements.blocks.append((item.selector, place))
    elif isinstance(item, config_parser.IncludeStatement):
        try:
            path = files.find_gin_file(item.filename)
        except ConfigurationError as error:
            raise ConfigurationError(f"{place}: include: {error}") from None
        _read_file(path, statements, above)
    elif item.module.startswith("__gin__"):
        raise ConfigurationError(
            f"{place}: tfdrl does not support gin's dynamic registration; decorate what you want "
            "to configure with @gin.configurable and write `import its_module`"
        )
    else:
        # `from a import b` and `as` load the same module; gin needs no more of them.
        statements.imports.append((item.module, place, f"import {item.module}"))


def _explain(error: SyntaxError, name: str, text: str) -> str:
    line = error.lineno or 1
    lines = text.splitlines()
    shown = lines[line - 1].strip() if 0 < line <= len(lines) else ""
    bare = re.search(r"Failed to parse token '([A-Za-z_]\w*)'", error.msg)
    if bare:
        word = bare.group(1)
        message = (
            f"{word} is not a value; a string has quotes ('{word}'), a configurable is @{word} "
            f"or @{word}(), a macro is %{word}"
        )
        if word.capitalize() in ("True", "False", "None"):
            message = f"{word} is not a value; write {word.capitalize()}"
    else:
        message = " ".join(error.msg.split())
    return f"{name}:{line}: {message}\n    {shown}"


def _short(path: pathlib.Path) -> str:
    """The path, relative to the working directory if it is inside it."""
    try:
        return path.relative_to(os.getcwd()).as_posix()
    except ValueError:
        return str(path)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """ "; did you mean a or b?", or nothing when nothing is near."""
    by_lower = {other.lower(): other for other in sorted(known)}
    near = difflib.get_close_matches(name.lower(), by_lower, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(by_lower[other] for other in near)}?" if near else ""
