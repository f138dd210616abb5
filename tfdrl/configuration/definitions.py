"""Where a name that a module imports is defined: followed through imports, nothing imported."""

from __future__ import annotations

import ast
from typing import NamedTuple

from tfdrl.configuration import bases, signatures, source

#: A package may hand a name on from module to module; a circle of imports ends here.
_MOST_STEPS = 10


class Definition(NamedTuple):
    """A class or function, and the module that it stands in."""

    module: str
    node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def find(module: str, name: str, steps: int = _MOST_STEPS) -> Definition | None:
    """The definition that the dotted `name` means inside `module`; None where none is found.

    That is for modules that are not written in Python, and for names that are computed.
    """
    path = source.module_file(module) if steps else None
    tree = source.parse(path) if path else None
    return None if tree is None else find_in(tree, module, name, steps)


def find_in(
    tree: ast.Module, module: str, name: str, steps: int = _MOST_STEPS
) -> Definition | None:
    """As `find`, for the syntax tree of a module."""
    for node in tree.body:
        if getattr(node, "name", None) == name:
            return Definition(module, node)
    first, _, rest = name.partition(".")
    imported = source.imported_names(tree, module, _is_package(module)).get(first)
    if imported is None:
        return None
    parts = [*imported.split("."), *filter(None, rest.split("."))]
    for length in range(len(parts) - 1, 0, -1):  # of its prefixes, the longest that is a module
        there = ".".join(parts[:length])
        if source.module_file(there):
            return find(there, ".".join(parts[length:]), steps - 1)
    return None


def signature(module: str, name: str) -> signatures.Signature:
    """The parameters of the definition that `name` means inside `module`; any if not found."""
    found = find(module, name)
    if found is None:
        return signatures.ANYTHING
    if not isinstance(found.node, ast.ClassDef):
        return signatures.of_function(found.node)
    tree = source.parse(source.module_file(found.module))
    classes = bases.of_module(tree, found.module, _is_package(found.module))
    return signatures.of_class(found.node, classes)


def _is_package(module: str) -> bool:
    path = source.module_file(module)
    return path is not None and path.name == "__init__.py"
