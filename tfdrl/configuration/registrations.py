"""What one module registers with gin, read from its syntax tree."""

from __future__ import annotations

import ast
import dataclasses
import pathlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

from tfdrl.configuration import bases, definitions, signatures

_REGISTERING = frozenset(("gin.configurable", "gin.register", "gin.external_configurable"))


@dataclasses.dataclass(frozen=True)
class Configurable:
    """A function or class that gin can configure.

    Attributes:
      name: as gin files usually write it.
      selector: gin's complete name, with the module.
      module: the Python module to import for it.
      place: "file:line" of its definition.
      signature: its parameters; any where they stand in another module.
      definition: what is registered, as a dotted name of `module`, where that imports it.
    """

    name: str
    selector: str
    module: str
    place: str
    signature: signatures.Signature
    definition: str = ""

    def completed(self) -> Configurable:
        """With the parameters of what `module` imports, which are read when they are asked for."""
        if not self.definition:
            return self
        signature = definitions.signature(self.module, self.definition)
        return dataclasses.replace(self, signature=signature, definition="")

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
    tree: ast.Module
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
    source = _Module(module, path, tree, dict(_aliases(nodes)), classes)
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
    elif isinstance(getattr(node, "value", None), ast.Call):
        call = node.value
        words = {word.arg: word.value for word in call.keywords}
        registered = call.args[0] if call.args else words.get("fn_or_cls")
        if registered is None:
            return
        if source.registers(call.func):
            yield call, registered
        elif isinstance(call.func, ast.Call) and source.registers(call.func.func):
            yield call.func, registered  # gin.configurable("name")(function)


def _configurable(
    call: ast.AST, definition: ast.AST, outer: ast.ClassDef | None, source: _Module
) -> list[Configurable]:
    """The entry of one registration; none if its name or module is computed."""
    words = _arguments(call, definition)
    name = words.get("name", getattr(definition, "name", None) or _last_part(definition))
    imported = _imported(definition, source)
    module = words["module"] if "module" in words else _home(imported, source)
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
    is_whole = not (words.get("allowlist") or words.get("denylist"))
    elsewhere = imported if is_whole else ""  # gin itself checks what the lists keep from it
    return [Configurable(name, selector, source.name, place, signature, elsewhere)]


def _imported(definition: ast.AST, source: _Module) -> str:
    """The dotted name of a definition that stands in another module; "" of one in this one."""
    is_here = isinstance(definition, ast.Name) and any(
        getattr(node, "name", None) == definition.id for node in source.tree.body
    )
    is_name = isinstance(definition, (ast.Name, ast.Attribute)) and not is_here
    return ast.unparse(definition) if is_name else ""


def _home(imported: str, source: _Module) -> str:
    """The module that gin puts into a complete name: that of the definition."""
    found = definitions.find_in(source.tree, source.name, imported) if imported else None
    return found.module if found else source.name


def _arguments(call: ast.AST, definition: ast.AST) -> dict[str, Any]:
    """The literal arguments of a registration, by gin's names; None for a computed one."""
    if not isinstance(call, ast.Call):
        return {}
    words = {keyword.arg: _literal(keyword.value) for keyword in call.keywords}
    if "name_or_fn" in words:
        words["name"] = words.pop("name_or_fn")
    words.pop("fn_or_cls", None)
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
