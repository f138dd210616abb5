"""Settings that nothing reads: training with them would be training without them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping

from tfdrl.configuration import source, values
from tfdrl.configuration.catalogue import Catalogue, mentions
from tfdrl.configuration.statements import Binding, did_you_mean

#: (scope, complete selector, parameter)
Key = tuple[str, str, str]

_ROOT = "tfdrl.experiment.experiment"
#: What is called though no value refers to it: always, in place of a parameter of an architecture
#: that is None, and by the subclass's constructor.
ALWAYS = ("tfdrl.agents.normalization.normalization",)
IN_PLACE_OF_NONE = {
    "exploration": "tfdrl.acting.exploration.epsilon_ladder",
    "strategy": "tfdrl.learning.devices.strategy",
    "table": "tfdrl.replay.transition_table.replay_table",
}
BY_SUBCLASS = {
    "tfdrl.agents.n_step_actor_critic.NStepActorCriticAgent": "tfdrl.agents.v_trace.VTraceAgent"
}


def macros(bindings: Iterable[Binding]) -> Iterator[str]:
    """A sentence for each macro of the command line that nothing refers to.

    `gama = 0.9` sets nothing, and would train on with the gamma of before. Files define some for
    those that include them.
    """
    bindings = list(bindings)
    leaves = (leaf for binding in bindings for leaf in values.leaves(binding.value))
    used = {leaf.name for leaf in leaves if isinstance(leaf, values.Macro)}
    for binding in bindings:
        if binding.is_typed and binding.macro is not None and binding.macro not in used:
            hint = did_you_mean(binding.macro, used) or "; write configurable.parameter = value"
            yield f"{binding.place}: nothing refers to the macro {binding.macro}{hint}"


def settings(
    bindings: Mapping[Key, Binding], catalogue: Catalogue, packages: Collection[str] = ()
) -> Iterator[tuple[Binding, str]]:
    """Bindings that have no effect, each with the reason.

    `--sweep='adam.learning_rate=1e-4,3e-4'` with a file of another optimizer would be two equal
    trainings. Only settings of what tfdrl itself registers are found: other packages may call
    theirs where no gin file refers to them.

    Args:
      bindings: that win.
      catalogue: of what can be configured.
      packages: that the gin files import, which may call what they name in their source.
    """
    if ("", _ROOT, "architecture") not in bindings:
        return
    found = {key: catalogue.find(key[1]) for key in bindings}
    modules = {key: items[0].module for key, items in found.items() if items}
    ours = {key for key, module in modules.items() if module.startswith("tfdrl.")}
    others = {key[1] for key, module in modules.items() if key not in ours and module != "gin"}
    reach = _Reach(bindings, catalogue, others)
    if packages and ours - reach.used:
        reach = _Reach(bindings, catalogue, others | _named(packages, catalogue))
    for key, binding in bindings.items():
        if key in ours - reach.used:
            yield binding, reach.why_not(key)


def _named(packages: Collection[str], catalogue: Catalogue) -> set[str]:
    """What tfdrl registers and these packages name, to call or to inherit it."""
    ours = [item for item in catalogue.configurables if item.module.startswith("tfdrl.")]
    files = [path for top in packages if top != "tfdrl" for _, path in source.package_modules(top)]
    contents = [content for path in files if b"tfdrl" in (content := path.read_bytes())]
    return {
        item.selector
        for item in ours
        if any(mentions(content, [item.name]) for content in contents)
    }


def used_by(bindings: Mapping[Key, Binding], scope: str, selector: str) -> dict[str, Key]:
    """What a call in a scope uses, by parameter: of several the one of the innermost scope."""
    holding = [key for key in bindings if key[1] == selector and _holds(key[0], scope)]
    return {key[2]: key for key in sorted(holding, key=_depth)}


class _Reach:
    """What is called from `experiment` on, in which scopes, and which bindings that uses.

    `others` are called, too, in any scope: code that no gin file refers to may do so.
    """

    def __init__(
        self, bindings: Mapping[Key, Binding], catalogue: Catalogue, others: Collection[str]
    ):
        self._bindings, self._catalogue = bindings, catalogue
        self._called: set[tuple[str, str]] = set()  # (scope, selector)
        self.used: set[Key] = set()
        waiting = [("", selector) for selector in (_ROOT, *ALWAYS, *others)]
        waiting += [(key[0], key[1]) for key in bindings if key[1] in others]
        while waiting:
            call = waiting.pop()
            if call not in self._called:
                self._called.add(call)
                waiting += self._calls(*call)

    def _calls(self, scope: str, selector: str) -> Iterator[tuple[str, str]]:
        """What a call uses, and what that refers to."""
        chosen = used_by(self._bindings, scope, selector)
        self.used.update(chosen.values())
        for key in chosen.values():
            for leaf in values.leaves(self._bindings[key].value):
                yield from self._referred(leaf, scope)
        if selector.startswith("tfdrl.architectures."):
            names = self._catalogue.find(selector)[0].parameter_names
            for name in IN_PLACE_OF_NONE.keys() & names:
                if name not in chosen or self._bindings[chosen[name]].value is None:
                    yield scope, IN_PLACE_OF_NONE[name]
        if selector in BY_SUBCLASS:
            yield scope, BY_SUBCLASS[selector]

    def _referred(self, leaf: object, scope: str) -> Iterator[tuple[str, str]]:
        if isinstance(leaf, values.Macro):
            yield leaf.name, "gin.macro"
            defined = self._bindings.get((leaf.name, "gin.macro", "value"))
            inner = values.leaves(defined.value) if defined else ()
            for reference in (one for one in inner if isinstance(one, values.Reference)):
                yield from self._referred(reference, scope)
        elif isinstance(leaf, values.Reference):
            # Without a scope of its own it is called in that of its caller, or later outside.
            for item in self._catalogue.find(leaf.selector):
                for inner in {leaf.scope} if leaf.scope else {scope, ""}:
                    yield inner, item.selector

    def why_not(self, key: Key) -> str:
        """The reason why a binding is not used, in words."""
        scope, selector, parameter = key
        name = self._short(selector)
        full = f"{scope}/{name}" if scope else name
        scopes = {called for called, other in self._called if other == selector}
        if not any(_holds(scope, called) for called in scopes):
            others = self._others(selector)
            has = f"; there are {', '.join(others)}" if others else ""
            return f"{full}.{parameter} has no effect, for nothing refers to @{full}{has}"
        inner = [
            f"{other}/{name}.{parameter}"
            for other, *same in sorted(self._bindings, key=_depth)
            if same == [selector, parameter] and _depth((other, *same)) > _depth(key)
        ]
        return (
            f"{full}.{parameter} has no effect, for {' and '.join(inner)} "
            f"{'are' if len(inner) > 1 else 'is'} set"
        )

    def _others(self, selector: str) -> list[str]:
        """What is called of the same module, or else of the same part of tfdrl."""
        called = {f"{scope}/{other}" if scope else other for scope, other in self._called}
        for prefix in (selector.rpartition(".")[0], ".".join(selector.split(".")[:2])):
            near = {
                f"@{scope}{slash}{self._short(other)}"
                for scope, slash, other in (path.rpartition("/") for path in called)
                if other.startswith(f"{prefix}.")
            }
            if near:
                return sorted(near)
        return []

    def _short(self, selector: str) -> str:
        return self._catalogue.shortest_name(self._catalogue.find(selector)[0])


def _holds(scope: str, called: str) -> bool:
    """Whether what is bound in a scope holds where something is called, inside it or in it."""
    return not scope or called == scope or called.startswith(f"{scope}/")


def _depth(key: Key) -> int:
    return key[0].count("/") + bool(key[0])
