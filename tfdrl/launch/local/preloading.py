"""What a fork server imports: the parts of the roles that it will fork, read from their source."""

from __future__ import annotations

import ast
import importlib.util
import pathlib
from collections.abc import Collection, Iterable

from tfdrl.configuration import source
from tfdrl.topology import Role

#: Imported first; the parts of the roles would import them in any case.
_TENSORFLOW = ("tensorflow", "tf_agents", "reverb")
_LIGHT = ("gymnasium",)
#: Called when the modules are there: what each role would read and convert anew.
_CATALOGUE = "tfdrl.configuration.loading:read_ahead"
_CONVERSIONS = "tfdrl.runtime.autograph:convert_ahead"


def preloaded(roles: Iterable[Role], modules: Iterable[str], tensorflow: bool) -> list[str]:
    """The modules that roles import, in the order of importing: only tfdrl's and TF-Agents'.

    A user's own are imported by the roles themselves: they may do anything at import.

    Args:
      roles: of one kind.
      modules: that the configuration names.
      tensorflow: whether those roles need TensorFlow; else it is not reached.
    """
    found = ["tfdrl.launch.role"]
    for role in roles:
        module, _, function = role.function.partition(":")
        found += _imports_of(module, function)
    found += modules
    own = [name for name in dict.fromkeys(found) if name.split(".")[0] in ("tfdrl", "tf_agents")]
    if not tensorflow:
        own = [name for name in own if not source.loads_tensorflow(name)]
    heads = [*_LIGHT, *(_TENSORFLOW if tensorflow else ())]
    last = [_CATALOGUE, *([_CONVERSIONS] if tensorflow else [])]
    return list(dict.fromkeys([*heads, *own, *last]))


def _imports_of(module: str, function: str) -> list[str]:
    """`module`, and the modules that its `function` imports: the role's parts list."""
    spec = importlib.util.find_spec(module) if module.split(".")[0] == "tfdrl" else None
    if spec is None or not spec.origin:
        return []
    tree = ast.parse(pathlib.Path(spec.origin).read_text())
    # What a role's function calls in its own file imports parts, too.
    nodes = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    found, todo, seen = [module], [function], set()
    while todo:
        name = todo.pop()
        if name not in nodes or name in seen:
            continue
        seen.add(name)
        for node in ast.walk(nodes[name]):
            if isinstance(node, ast.ImportFrom) and node.module:
                found += _modules_of(node.module, [alias.name for alias in node.names])
            elif isinstance(node, ast.Import):
                found += [alias.name for alias in node.names]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                todo.append(node.func.id)
    return found


def _modules_of(package: str, names: Collection[str]) -> list[str]:
    """What `from package import names` imports: modules of the package, or names of a module."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return [package]
    folders = [pathlib.Path(folder) for folder in spec.submodule_search_locations]
    there = [n for n in names if any((f / f"{n}.py").exists() or (f / n).is_dir() for f in folders)]
    return [package, *(f"{package}.{name}" for name in there)]
