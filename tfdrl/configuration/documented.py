"""What can be set, and what it means: read from docstrings, nothing imported."""

from __future__ import annotations

import ast
import inspect
import pathlib
import re
from collections.abc import Iterator
from typing import NamedTuple

from tfdrl.configuration import bases, definitions, source
from tfdrl.configuration.catalogue import Catalogue, catalogue, gymnasium_wrappers, scan_package
from tfdrl.configuration.registrations import Configurable

REQUIRED = "required"
_SECTION = re.compile(r"^(Args|Attributes|Arguments|Parameters)\b[^\n]*:$")
#: "  name: words", "  one, another: words", "  name (int): words".
_ENTRY = re.compile(r"^ {2,4}(\**\w+(?:, \**\w+)*)(?: \([^)]*\))?: *(.*)$")


class Setting(NamedTuple):
    """One thing that gin can set.

    name      of the parameter
    default   as source text, or REQUIRED
    about     what it means, on one line; empty where no docstring says it
    """

    name: str
    default: str
    about: str


def find(name: str) -> Configurable | None:
    """What gin can configure under that name: of tfdrl's own, TF-Agents', or Gymnasium's wrappers.

    None if there is no such thing.
    """
    for found in (catalogue, gymnasium_wrappers, lambda: _foreign(name)):
        items = found().find(name)
        if items:
            return items[0]
    return None


def _foreign(name: str) -> Catalogue:
    return scan_package("tf_agents", {name.rpartition(".")[2]})


def summary(item: Configurable) -> str:
    """The first sentence of the docstring of what gin can configure; empty without one."""
    for text in _docstrings(item):
        first = " ".join(text.split("\n\n")[0].split())
        return re.split(r"(?<=[.]) (?=[A-Z])", first)[0].rstrip(".")
    return ""


def settings(item: Configurable) -> list[Setting]:
    """The parameters that gin may set: those without a default are given by the program."""
    about: dict[str, str] = {}
    for text in _docstrings(item):
        about = {**_entries(text), **about}  # a class's own words before those of its bases
    found = []
    for parameter in item.completed().signature.parameters:
        if parameter.default is not None:
            is_required = parameter.default == "gin.REQUIRED"
            default = REQUIRED if is_required else parameter.default
            found.append(Setting(parameter.name, default, about.get(parameter.name, "")))
    return found


def _entries(docstring: str) -> dict[str, str]:
    """The words of each parameter that a docstring explains."""
    found: dict[str, str] = {}
    names: list[str] = []
    is_inside = False
    for line in docstring.splitlines():
        if line and not line.startswith(" "):
            is_inside = bool(_SECTION.match(line))
        elif is_inside and (entry := _ENTRY.match(line)):
            names = [name.lstrip("*") for name in entry.group(1).split(", ")]
            found.update(dict.fromkeys(names, entry.group(2).strip()))
        elif is_inside and line.strip():
            found.update({name: f"{found[name]} {line.strip()}" for name in names})
    return found


def _docstrings(item: Configurable) -> Iterator[str]:
    """Those of a function, or of a class, its constructor and its bases, tidied."""
    place = _definition(item)
    if place is None:
        return
    todo = [place]
    while todo:
        node, classes = todo.pop(0)
        parts = [node, *(p for p in node.body if getattr(p, "name", "") == "__init__")]
        for part in parts:
            if text := ast.get_docstring(part):
                yield inspect.cleandoc(text)
        if isinstance(node, ast.ClassDef) and classes is not None:
            todo += [found for base in node.bases if (found := classes.find(base))]


def _definition(item: Configurable) -> tuple[ast.AST, bases.Classes | None] | None:
    """The syntax tree of what is registered, and the classes that it may name."""
    module = item.module
    if item.definition:
        found = definitions.find(module, item.definition)
        if found is None:
            return None
        module, node = found.module, found.node
        tree = source.parse(source.module_file(module))
    else:
        path, _, line = item.place.rpartition(":")
        tree = source.parse(pathlib.Path(path))
        node = _at(tree, int(line))
    if tree is None or node is None:
        return None
    file = source.module_file(module)
    is_package = file is not None and file.name == "__init__.py"
    return node, bases.of_module(tree, module, is_package)


def _at(tree: ast.Module | None, line: int) -> ast.AST | None:
    """The class or function whose decorators or first line stand there."""
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            if first <= line <= node.lineno:
                return node
    return None
