"""Where a class's base stands: in its own module, or in another one of the same package."""

from __future__ import annotations

import ast
from typing import NamedTuple

from tfdrl.configuration import source


class Classes(NamedTuple):
    """The classes that a module can name, as far as they are followed.

    module    its name
    own       its classes by name
    imported  complete names of what it imports, by the names that it uses for them
    read      modules whose source was read for a base, over all that share this
    """

    module: str
    own: dict[str, ast.ClassDef]
    imported: dict[str, str]
    read: set[str]

    def find(self, base: ast.AST) -> tuple[ast.ClassDef, Classes] | None:
        """The definition that an expression such as `C` or `m.C` means, and what that may name.

        None if it stands in a module that is not followed: of neither this package nor tfdrl.
        """
        if isinstance(base, ast.Name) and base.id in self.own:
            return self.own[base.id], self
        module, _, name = self._complete_name(base).rpartition(".")
        if module.partition(".")[0] not in (self.module.partition(".")[0], "tfdrl"):
            return None
        path = source.module_file(module)
        tree = path and source.parse(path)
        if tree is None:
            return None
        there = of_module(tree, module, path.name == "__init__.py", self.read)
        if name not in there.own:
            return None
        self.read.add(module)
        return there.own[name], there

    def _complete_name(self, node: ast.AST) -> str:
        if isinstance(node, ast.Attribute):
            inner = self._complete_name(node.value)
            return f"{inner}.{node.attr}" if inner else ""
        return self.imported.get(node.id, "") if isinstance(node, ast.Name) else ""


def of_module(
    tree: ast.Module, module: str, is_package: bool = False, read: set[str] | None = None
) -> Classes:
    """The classes of a module, from its syntax tree."""
    own = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    imported = source.imported_names(tree, module, is_package)
    return Classes(module, own, imported, set() if read is None else read)
