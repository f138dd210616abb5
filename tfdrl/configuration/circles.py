"""Values that could not be made without themselves, such as `a = %b` with `b = %a`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tfdrl.configuration import values
from tfdrl.configuration.catalogue import Catalogue
from tfdrl.configuration.statements import Binding
from tfdrl.configuration.unused import used_by

_MACRO = "gin.macro"


def circles(
    bindings: Mapping[tuple[str, str, str], Binding], catalogue: Catalogue
) -> Iterator[str]:
    """A sentence for each; gin would go round until Python's stack is full.

    Args:
      bindings: that win, by scope, complete selector and parameter.
      catalogue: of what can be configured.
    """
    made: set[tuple[str, str]] = set()  # (scope, selector): calls that are known to end

    def visit(call: tuple[str, str], above: tuple[tuple[str, str], ...]) -> Iterator[str]:
        for key in used_by(bindings, *call).values():
            binding = bindings[key]
            for needed in _needed(binding.value, call[0]):
                path = (*above, call)
                if needed in path:
                    names = " -> ".join(map(_shown, (*path[path.index(needed) :], needed)))
                    yield f"{binding.place}: a value that needs itself: {names}"
                elif needed not in made:
                    yield from visit(needed, path)
        made.add(call)

    def _needed(value: object, scope: str) -> Iterator[tuple[str, str]]:
        for leaf in values.leaves(value):
            if isinstance(leaf, values.Macro):
                yield leaf.name, _MACRO
            elif isinstance(leaf, values.Reference) and leaf.evaluate:
                for item in catalogue.find(leaf.selector):
                    yield leaf.scope or scope, item.selector

    for scope, selector, _ in bindings:
        if (scope, selector) not in made:
            yield from visit((scope, selector), ())


def _shown(call: tuple[str, str]) -> str:
    scope, selector = call
    name = selector.rpartition(".")[2]
    return f"%{scope}" if selector == _MACRO else f"@{scope}/{name}()" if scope else f"@{name}()"
