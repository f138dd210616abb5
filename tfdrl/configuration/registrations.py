"""What one module registers with gin, read from its syntax tree."""

from __future__ import annotations

import ast
import dataclasses
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from tfdrl.configuration import bases, signatures

_REGISTERING = frozenset(("gin.configurable", "gin.register", "gin.external_configurable"))


@dataclasses.dataclass(frozen=True)
class Configurable:
    """A function or class that gin can configure.

    Attributes:
      name: as gin files usually write it.
      selector: gin's complete name, with the module.
      module: the Python module to import for it.
      place: "file:line" of its definition.
      signature: its parameters.
    """

    name: str
    selector: str
    module: str
    place: str
    signature: signatures.Signature

    @property
    def parameter_names(self) -> list[str]:
        return [parameter.name for parameter in self.signature.parameters]

    def parameter(self, name: str) -> signatures.Parameter | None:
        """The parameter of that name; None if there is none, or none is known."""
        for parameter in self.signature.parameters:
            if parameter.name == name:
                return parameter
        return None


class Registrations(NamedTuple):
    """What a module registers.

    constants: complete names. is_open: a registration's name or module is computed, or it
    runs in a loop or a function, so that the source does not tell everything. bases: other
    modules whose source was read, for the classes that this one's inherit from.
    """

    configurables: tuple[Configurable, ...]
    constants: tuple[str, ...]
    is_open: bool
    bases: tuple[str, ...] = ()


class _Module(NamedTuple):
    name: str
    path: pathlib.Path
    aliases: dict[str, str]  # local name -> gin's name
    classes: bases.Classes

    def gin_name(self, node: ast.AST) -> str:
        """ "gin.x" of an expression that means gin's x; otherwise something else or ""."""
        if isinstance(node, ast.Attribute):
            inner = self.gin_name(node.value)
            return f"{inner}.{node.attr}".replace("gin.config.", "gin.") if inner else ""
        return self.aliases.get(node.id, "") if isinstance(node, ast.Name) else ""

    def registers(self, node: ast.AST) -> bool:
        return self.gin_name(node) in _REGISTERING


def read(tree: ast.Module, module: str, path: pathlib.Path) -> Registrations:
    """The registrations of a module."""
    classes = bases.of_module(tree, module, path.name == "__init__.py")
    nodes = list(ast.walk(tree))
    source = _Module(module, path, dict(_aliases(nodes)), classes)
    found = []
    for node, outer in _definitions(tree.body, None):
        for call, definition in _registrations(node, source):
            found += _configurable(call, definition, outer, source)
    constants = [name for node in nodes for name in _constants(node, source)]
    mentioned = sum(source.registers(node) for node in nodes)
    is_open = mentioned > len(found)
    return Registrations(tuple(found), tuple(constants), is_open, tuple(sorted(classes.read)))


def _aliases(nodes: Iterable[ast.AST]) -> Iterator[tuple[str, str]]:
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "gin":
                    yield alias.asname or "gin", alias.name if alias.asname else "gin"
        elif isinstance(node, ast.ImportFrom) and node.module in ("gin", "gin.config"):
            for alias in node.names:
                yield alias.asname or alias.name, f"gin.{alias.name}"


def _definitions(
    body: Iterable[ast.stmt], outer: ast.ClassDef | None
) -> Iterator[tuple[ast.stmt, ast.ClassDef | None]]:
    """Statements that run once when the module is imported, with the class they stand in."""
    for node in body:
        yield node, outer
        if isinstance(node, ast.ClassDef):
            yield from _definitions(node.body, node)
        elif isinstance(node, (ast.If, ast.Try, ast.With)):
            for inner in ("body", "orelse", "finalbody"):
                yield from _definitions(getattr(node, inner, ()), outer)


def _registrations(node: ast.stmt, source: _Module) -> Iterator[tuple[ast.AST, ast.AST]]:
    """(decorator or call, what it registers) of one statement."""
    if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        for decorator in node.decorator_list:
            if source.registers(decorator.func if isinstance(decorator, ast.Call) else decorator):
                yield decorator, node
    elif isinstance(getattr(node, "value", None), ast.Call) and node.value.args:
        call = node.value
        if source.registers(call.func):
            yield call, call.args[0]
        elif isinstance(call.func, ast.Call) and source.registers(call.func.func):
            yield call.func, call.args[0]  # gin.configurable("name")(function)


def _configurable(
    call: ast.AST, definition: ast.AST, outer: ast.ClassDef | None, source: _Module
) -> list[Configurable]:
    """The entry of one registration; none if its name or module is computed."""
    words = _arguments(call, definition)
    name = words.get("name", getattr(definition, "name", None) or _last_part(definition))
    module = words.get("module", source.name)
    if not isinstance(name, str) or not name or not isinstance(module, str):
        return []
    if outer is not None and any(
        source.gin_name(item.func if isinstance(item, ast.Call) else item) == "gin.register"
        for item in outer.decorator_list
    ):
        name = f"{outer.name}.{name}"  # gin names the methods of a registered class so
        selector = f"{module}.{name}"
    elif "." in name and "module" not in words:
        selector = name  # a dotted name brings its own module
    else:
        selector = f"{module}.{name}"
    signature = _restricted(_signature(definition, outer is not None, source), words)
    place = f"{source.path}:{getattr(definition, 'lineno', call.lineno)}"
    return [Configurable(name, selector, source.name, place, signature)]


def _arguments(call: ast.AST, definition: ast.AST) -> dict[str, Any]:
    """The literal arguments of a registration, by gin's names; None for a computed one."""
    if not isinstance(call, ast.Call):
        return {}
    words = {keyword.arg: _literal(keyword.value) for keyword in call.keywords}
    if "name_or_fn" in words:
        words["name"] = words.pop("name_or_fn")
    positional = call.args[1:] if call.args and call.args[0] is definition else call.args
    words.update(zip(("name", "module", "allowlist", "denylist"), map(_literal, positional)))
    return words


def _signature(definition: ast.AST, is_method: bool, source: _Module) -> signatures.Signature:
    if isinstance(definition, ast.ClassDef):
        return signatures.of_class(definition, source.classes)
    if found := source.classes.find(definition):
        return signatures.of_class(*found)
    if isinstance(definition, (ast.FunctionDef, ast.AsyncFunctionDef)):
        return signatures.of_function(definition, is_method)
    return signatures.ANYTHING


def _restricted(signature: signatures.Signature, words: dict[str, Any]) -> signatures.Signature:
    """The signature without what the registration's allowlist or denylist keeps from gin."""
    allowed, denied = words.get("allowlist"), words.get("denylist") or ()
    kept = tuple(
        parameter
        for parameter in signature.parameters
        if parameter.name not in denied and (not allowed or parameter.name in allowed)
    )
    return dataclasses.replace(signature, parameters=kept)


def _constants(node: ast.AST, source: _Module) -> list[str]:
    """Complete names of the constants that an expression or an enum class defines."""
    if isinstance(node, ast.Call) and source.gin_name(node.func) == "gin.constant" and node.args:
        name = _literal(node.args[0])
        return [name] if isinstance(name, str) else []
    if isinstance(node, ast.ClassDef) and any(
        source.gin_name(item) == "gin.constants_from_enum" for item in node.decorator_list
    ):
        targets = [item.targets[0] for item in node.body if isinstance(item, ast.Assign)]
        names = [target.id for target in targets if isinstance(target, ast.Name)]
        return [f"{source.name}.{node.name}.{name}" for name in names]
    return []


def _literal(node: ast.AST) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def _last_part(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
