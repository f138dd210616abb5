"""Values of bindings: references and macros as data, their text, and their fit to annotations."""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Reference:
    """`@scope/selector` or, evaluated, `@scope/selector()`."""

    scope: str
    selector: str
    evaluate: bool

    @classmethod
    def parse(cls, scoped: str, evaluate: bool) -> Reference:
        scope, _, selector = scoped.rpartition("/")
        return cls(scope, selector, evaluate)

    def __repr__(self) -> str:
        scope = f"{self.scope}/" if self.scope else ""
        return f"@{scope}{self.selector}{'()' if self.evaluate else ''}"


@dataclasses.dataclass(frozen=True)
class Macro:
    """`%name`."""

    name: str

    def __repr__(self) -> str:
        return f"%{self.name}"


def meaning(text: str) -> Any:
    """What tells the text of a value from those of others: 1e-3 and 0.001 are one number."""
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):  # references, macros, words
        return text
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number else repr(value)


def leaves(value: Any) -> Iterator[Any]:
    """Everything inside nested containers (dictionary keys too)."""
    if isinstance(value, dict):
        value = [*value, *value.values()]
    if isinstance(value, (list, tuple)):
        for item in value:
            yield from leaves(item)
    else:
        yield value


def transform(value: Any, function: Callable[[Any], Any]) -> Any:
    """The same nest with `function` applied to its leaves."""
    if isinstance(value, dict):
        return {transform(k, function): transform(v, function) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(transform(item, function) for item in value)
    return function(value)


def fits(value: Any, annotation: str) -> bool:
    """Whether `value` may be given where `annotation` (source text) stands.

    Understands int, float (takes int), bool, str, bytes, None, Optional, Union, `|`, Literal,
    and sequences and dictionaries of them; tuple and list stand for each other. What it does
    not understand, and references and macros, fit.
    """
    try:
        return _fits(value, ast.parse(annotation, mode="eval").body)
    except SyntaxError:
        return True


_INF = float("inf")
_ANY = (-_INF, _INF, True)
#: What numbers may be, by the parameter's name or its end, which says what it counts: the least and
#: the greatest, and whether these are allowed themselves.
_RANGES = {
    **dict.fromkeys(("secs", "minutes", "ms", "steps", "frames", "episodes"), (0, _INF, True)),
    **dict.fromkeys(("updates", "items", "transitions", "unrolls"), (0, _INF, True)),
    **dict.fromkeys(("threads", "sampled", "rate", "initial", "final", "cost"), (0, _INF, True)),
    **dict.fromkeys(("epsilon", "priority_exponent", "importance_exponent"), (0, _INF, True)),
    **dict.fromkeys(("timeout_secs", "second", "norm", "clip"), (0, _INF, False)),
    **dict.fromkeys(("gamma", "epsilon_start", "epsilon_end"), (0, 1, True)),
    **dict.fromkeys(("decay", "beta_1", "beta_2"), (0, 1, True)),
    **dict.fromkeys(("period_steps", "period_updates", "period_frames"), (1, _INF, True)),
    **dict.fromkeys(("size", "units"), (1, _INF, True)),
    "niceness": (0, 19, True),
}
#: Infinite, these are a mistake, and no way to say "never".
_FINITE = ("rate", "exponent", "norm", "initial", "final", "cost", "epsilon")


def out_of_range(name: str, value: Any) -> str:
    """What is wrong with a number where the parameter's name says what it counts; mostly nothing.

    Args:
      name: of one of tfdrl's parameters, which end in their unit.
      value: that it is given.
    """
    ends = [name, *(name[i + 1 :] for i, letter in enumerate(name) if letter == "_")]
    low, high, takes_ends = next((_RANGES[end] for end in ends if end in _RANGES), _ANY)
    for leaf in leaves(value):
        if isinstance(leaf, bool) or not isinstance(leaf, (int, float)):
            continue
        if isinstance(leaf, int) and leaf.bit_length() > 63:
            return "does not fit into 64 bits"
        if abs(leaf) == _INF and (ends[-1] in _FINITE or not takes_ends):
            return "must be finite"
        if ends[-1] == "units" and not isinstance(leaf, int):
            return "must be a whole number"
        if not (low <= leaf <= high if takes_ends else low < leaf < high):
            if high < _INF:
                return f"must be from {low} to {high}"
            return f"must be {low} or more" if takes_ends else f"must be above {low}"
    return ""


_SCALARS = {"int": int, "float": (int, float), "bool": bool, "str": str, "bytes": bytes}
_SEQUENCES = frozenset(("tuple", "Tuple", "list", "List", "Sequence", "Collection", "Iterable"))
_MAPPINGS = frozenset(("dict", "Dict", "Mapping", "MutableMapping"))


def _fits(value: Any, node: ast.expr) -> bool:
    if isinstance(value, (Reference, Macro)):
        return True
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return fits(value, node.value)
        return value is None if node.value is None else True
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        return _fits(value, node.left) or _fits(value, node.right)
    if isinstance(node, ast.Subscript):
        return _fits_generic(value, _name(node.value), _elements(node.slice))
    name = _name(node)
    if name in _SCALARS:
        if isinstance(value, bool) and name != "bool":
            return False
        return isinstance(value, _SCALARS[name])
    return _fits_generic(value, name, [])


def _fits_generic(value: Any, name: str, arguments: list[ast.expr]) -> bool:
    if name == "Optional":
        return value is None or _fits(value, arguments[0])
    if name == "Union":
        return any(_fits(value, argument) for argument in arguments)
    if name == "Literal":
        return any(isinstance(a, ast.Constant) and a.value == value for a in arguments)
    if name in ("Annotated", "Final") and arguments:
        return _fits(value, arguments[0])
    if name in _SEQUENCES:
        return _fits_sequence(value, arguments, fixed=name in ("tuple", "Tuple"))
    if name in _MAPPINGS:
        return isinstance(value, dict) and (
            len(arguments) != 2
            or all(_fits(k, arguments[0]) and _fits(v, arguments[1]) for k, v in value.items())
        )
    return True


def _fits_sequence(value: Any, arguments: list[ast.expr], fixed: bool) -> bool:
    if not isinstance(value, (list, tuple)):
        return False
    if not arguments:
        return True
    if fixed and not (isinstance(arguments[-1], ast.Constant) and arguments[-1].value is ...):
        pairs = zip(value, arguments)
        return len(value) == len(arguments) and all(_fits(item, node) for item, node in pairs)
    return all(_fits(item, arguments[0]) for item in value)


def _elements(node: ast.expr) -> list[ast.expr]:
    return list(node.elts) if isinstance(node, ast.Tuple) else [node]


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
