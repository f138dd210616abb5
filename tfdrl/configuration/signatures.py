"""Parameters of functions and classes, read from their syntax trees."""

from __future__ import annotations

import ast
import dataclasses

from tfdrl.configuration.bases import Classes

_PLAIN_BASES = frozenset(("object", "ABC", "Protocol", "Generic"))


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter: `annotation` and `default` are source text, None where there is none."""

    name: str
    annotation: str | None = None
    default: str | None = None


@dataclasses.dataclass(frozen=True)
class Signature:
    """The named parameters, and whether any other name is accepted (`**kwargs`, unknown base)."""

    parameters: tuple[Parameter, ...] = ()
    accepts_any: bool = False


ANYTHING = Signature(accepts_any=True)


def of_function(node: ast.FunctionDef | ast.AsyncFunctionDef, method: bool = False) -> Signature:
    """The signature of a function; of a method, without its first parameter."""
    spec = node.args
    positional = [*spec.posonlyargs, *spec.args]
    defaults = [None] * (len(positional) - len(spec.defaults)) + list(spec.defaults)
    pairs = list(zip(positional, defaults))
    static = any(_last_name(decorator) == "staticmethod" for decorator in node.decorator_list)
    if method and not static:
        pairs = pairs[1:]
    pairs += zip(spec.kwonlyargs, spec.kw_defaults)
    parameters = tuple(Parameter(arg.arg, _text(arg.annotation), _text(d)) for arg, d in pairs)
    return Signature(parameters, accepts_any=spec.kwarg is not None)


def of_class(node: ast.ClassDef, classes: Classes) -> Signature:
    """The signature of a class's constructor; `classes` are those that its module can name."""
    methods = {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}
    if "__init__" in methods:
        return of_function(methods["__init__"], method=True)
    if _is_dataclass(node):
        return _of_dataclass(node, classes)
    if "__new__" in methods:
        return of_function(methods["__new__"], method=True)
    if any(_last_name(base) == "NamedTuple" for base in node.bases):
        return Signature(tuple(_fields(node)))
    return _of_bases(node, classes)


def _of_bases(node: ast.ClassDef, classes: Classes) -> Signature:
    for base in node.bases:
        if _last_name(base) in _PLAIN_BASES:
            continue
        found = classes.find(base)
        return ANYTHING if found is None or found[0] is node else of_class(*found)
    return Signature()


def _of_dataclass(node: ast.ClassDef, classes: Classes) -> Signature:
    inherited = _of_bases(node, classes)
    fields = {parameter.name: parameter for parameter in inherited.parameters}
    fields.update((parameter.name, parameter) for parameter in _fields(node))
    return Signature(tuple(fields.values()), inherited.accepts_any)


def _fields(node: ast.ClassDef) -> list[Parameter]:
    fields = []
    for item in node.body:
        if not (isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)):
            continue
        annotation = item.annotation
        kind = _last_name(annotation.value if isinstance(annotation, ast.Subscript) else annotation)
        if kind in ("ClassVar", "KW_ONLY") or _left_out(item.value):
            continue
        if kind == "InitVar" and isinstance(annotation, ast.Subscript):
            annotation = annotation.slice
        fields.append(Parameter(item.target.id, _text(annotation), _text(item.value)))
    return fields


def _left_out(value: ast.AST | None) -> bool:
    """Whether a field's value is `field(init=False)`."""
    return isinstance(value, ast.Call) and any(
        keyword.arg == "init"
        and isinstance(keyword.value, ast.Constant)
        and keyword.value.value is False
        for keyword in value.keywords
    )


def _is_dataclass(node: ast.ClassDef) -> bool:
    calls = (d.func if isinstance(d, ast.Call) else d for d in node.decorator_list)
    return any(_last_name(call) == "dataclass" for call in calls)


def _last_name(node: ast.AST) -> str:
    """`c` of `a.b.c`, `a.b.c[...]` and of "c"."""
    if isinstance(node, ast.Subscript):
        node = node.value
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _text(node: ast.AST | None) -> str | None:
    return None if node is None else ast.unparse(node)
