"""Settings of the command line that could have no effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tfdrl.configuration import statements, values
from tfdrl.configuration.catalogue import Catalogue
from tfdrl.configuration.statements import Binding

#: Its configurables are called only where a value refers to them.
_MODULE = "tfdrl.agents.optimizers"


def unused_optimizers(
    bindings: Mapping[tuple[str, str, str], Binding], catalogue: Catalogue
) -> Iterator[str]:
    """A sentence for each setting of an optimizer, or schedule, that nothing refers to.

    `--sweep='adam.learning_rate=1e-4,3e-4'` with a file of another optimizer would be two equal
    trainings. Files may have such settings: what includes them takes its choice.

    Args:
      bindings: that win, by scope, complete selector and parameter.
      catalogue: of what can be configured.
    """
    leaves = (leaf for binding in bindings.values() for leaf in values.leaves(binding.value))
    references = {leaf.selector for leaf in leaves if isinstance(leaf, values.Reference)}
    used = {item.selector for reference in references for item in catalogue.find(reference)}
    for (_, selector, parameter), binding in bindings.items():
        is_typed = binding.place.startswith(statements.COMMAND_LINE)
        if is_typed and selector.startswith(f"{_MODULE}.") and selector not in used:
            name = selector.rpartition(".")[2]
            others = sorted(u.rpartition(".")[2] for u in used if u.startswith(f"{_MODULE}."))
            has = f"; there are {', '.join(f'@{other}' for other in others)}" if others else ""
            yield (
                f"{binding.place}: {name}.{parameter} would have no effect, for nothing refers to "
                f"@{name}{has}"
            )
