"""The static check: every statement of the gin files against the catalogue, nothing imported."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

from tfdrl.configuration import source, statements, unused, values
from tfdrl.configuration.catalogue import Catalogue, catalogue, gymnasium_wrappers, scan_package
from tfdrl.configuration.circles import circles
from tfdrl.configuration.registrations import Configurable
from tfdrl.configuration.statements import Binding, did_you_mean
from tfdrl.errors import ConfigurationError

#: Where names that no gin file imports may come from, since tfdrl itself imports it.
_ALWAYS_KNOWN = "tf_agents"

_MAX_ERRORS = 10


@dataclasses.dataclass(frozen=True)
class Configuration:
    """What the gin files and bindings of a run say.

    Attributes:
      text: the import lines and every effective binding, one a line, the last one of a
        parameter winning, sorted; itself a gin file that means the same.
      digest: of `text`; two roles of one run have the same.
      modules: modules that register what the bindings and references name, sorted.
      imports: the gin files' own import lines.
      remarks: on what the files say without effect, for people.
    """

    text: str
    digest: str
    modules: tuple[str, ...]
    imports: tuple[str, ...]
    remarks: tuple[str, ...] = dataclasses.field(default=(), compare=False)


@dataclasses.dataclass(frozen=True)
class Plan:
    """A checked configuration with what loading it takes.

    `bindings` maps (scope, complete selector, parameter) to the binding that wins; a macro's
    key is (name, "gin.macro", "value"). `imports` are (module, place).
    """

    configuration: Configuration
    bindings: dict[tuple[str, str, str], Binding]
    imports: tuple[tuple[str, str], ...]
    catalogue: Catalogue


def check(
    gin_files: Sequence[str] | None, gin_bindings: Sequence[str] | None = ()
) -> Configuration:
    """Checks gin files and command-line bindings; imports nothing that they name.

    Raises:
      ConfigurationError: lists what is wrong, each with file, line and the nearest valid name.
    """
    return examine(gin_files, gin_bindings).configuration


def without_effect(gin_files: Sequence[str], gin_bindings: Sequence[str]) -> dict[str, str]:
    """Those of the bindings that these files would not heed, each with the reason.

    Only bindings of one line are told apart. Raises ConfigurationError: as `check`, for all else.
    """
    examination = _Examination(statements.read(gin_files, gin_bindings))
    examination.plan(refuses_unused=False)
    of_line = [binding for binding in gin_bindings for _ in binding.split("\n")]
    numbers = ((int(place.rpartition(":")[2]), reason) for place, reason in examination.unused)
    found = ((of_line[number - 1], reason) for number, reason in numbers)
    return {binding: reason for binding, reason in found if "\n" not in binding}


def examine(gin_files: Sequence[str] | None, gin_bindings: Sequence[str] | None) -> Plan:
    """`check`, with all that `load` needs."""
    read = statements.read(gin_files or (), gin_bindings or ())
    return _Examination(read).plan()


class _Examination:
    """One pass over the statements; collects errors, so that one run shows them all."""

    def __init__(self, read: statements.Statements) -> None:
        self._read = read
        self._errors: list[str] = []
        self._remarks: list[str] = []
        self.unused: list[tuple[str, str]] = []  # (place, reason) of what is typed in vain
        self._modules: set[str] = set()
        self._bindings: dict[tuple[str, str, str], Binding] = {}
        self._lets_through = False
        self._tops: set[str] = set()  # packages that are imported
        self._catalogue = self._known()
        self._macros = {
            binding.macro: binding.value for binding in read.bindings if binding.macro is not None
        }

    def plan(self, refuses_unused: bool = True) -> Plan:
        for selector, place in self._read.blocks:
            self._find(selector, place)
        for binding in self._read.bindings:
            self._check_binding(binding)
        self._check_that_all_are_used()
        self._errors += circles(self._bindings, self._catalogue)
        if refuses_unused:
            self._errors += [f"{place}: {reason}" for place, reason in self.unused]
        for (_, selector, parameter), binding in self._bindings.items():
            if binding.value == values.Macro("gin.REQUIRED"):
                name = self._short_selector(selector)
                self._errors.append(f"{binding.place}: {name}.{parameter} must be set")
        if self._errors:
            shown = list(dict.fromkeys(self._errors))
            more = len(shown) - _MAX_ERRORS
            shown = shown[:_MAX_ERRORS] + ([f"and {more} more"] if more > 0 else [])
            raise ConfigurationError("\n".join(shown))
        imports = tuple(dict.fromkeys((module, place) for module, place, _ in self._read.imports))
        return Plan(self._configuration(), self._bindings, imports, self._catalogue)

    def _known(self) -> Catalogue:
        """tfdrl's catalogue and the imported packages'; for names still missing, Gymnasium's
        wrappers, and TF-Agents' for the rest.
        """
        known = catalogue()
        names = {selector.rpartition(".")[2] for selector in self._selectors()}
        for module, place, _ in self._read.imports:
            if source.module_exists(module):
                self._tops.add(module.split(".")[0])
                self._lets_through |= source.module_file(module) is None
            else:
                self._errors.append(f"{place}: there is no module {module}{source.hint_of(module)}")
        for top in sorted(self._tops - {"tfdrl"}):
            foreign = scan_package(top, names)
            self._lets_through |= foreign.is_open
            known += foreign
        known += gymnasium_wrappers().only(self._missing(known))
        missing = self._missing(known)
        last = scan_package(_ALWAYS_KNOWN, {name.rpartition(".")[2] for name in missing})
        return known + last.only(missing)

    def _missing(self, known: Catalogue) -> set[str]:
        return {selector for selector in self._selectors() if not known.find(selector)}

    def _selectors(self) -> set[str]:
        """Selectors that the statements bind or refer to."""
        bound = {binding.selector for binding in self._read.bindings if binding.parameter}
        bound.update(selector for selector, _ in self._read.blocks)
        leaves = (leaf for b in self._read.bindings for leaf in values.leaves(b.value))
        return bound | {leaf.selector for leaf in leaves if isinstance(leaf, values.Reference)}

    def _find(self, selector: str, place: str) -> Configurable | None:
        """The configurable a selector means; None, with an error noted, if it means none."""
        found = self._catalogue.find(selector)
        if len(found) == 1:
            if found[0].module != "gin":
                self._modules.add(found[0].module)
            return found[0].completed()
        if found:
            complete = ", ".join(item.selector for item in found)
            self._errors.append(f"{place}: {selector} is ambiguous; write one of: {complete}")
        elif not self._lets_through:
            self._errors.append(f"{place}: {self._unknown(selector)}")
        return None

    def _unknown(self, selector: str) -> str:
        known = self._catalogue.configurables + gymnasium_wrappers().configurables
        names = {item.name.rpartition(".")[2] for item in known}
        names -= {"macro", "singleton", "constant"}
        hint = did_you_mean(selector.rpartition(".")[2], names)
        if not hint:
            hint = "; if a package of yours registers it, add a line `import that_package`"
        return f"there is nothing called {selector} to configure{hint}"

    def _check_binding(self, binding: Binding) -> None:
        for leaf in values.leaves(binding.value):
            if isinstance(leaf, values.Reference):
                self._find(leaf.selector, binding.place)
            elif isinstance(leaf, values.Macro):
                self._check_macro(leaf.name, binding.place)
        if binding.macro is not None:
            self._bindings[binding.macro, "gin.macro", "value"] = binding
            return
        item = self._find(binding.selector, binding.place)
        if item is not None and self._has_parameter(item, binding):
            self._check_type(item, binding)
            self._check_range(item, binding)
        selector = item.selector if item else binding.selector
        self._bindings[binding.scope, selector, binding.parameter] = binding

    def _check_macro(self, name: str, place: str) -> None:
        if name in self._macros:
            return
        module = self._catalogue.constant_module(name)
        if module is None:
            hint = did_you_mean(name, self._macros)
            example = name.rpartition("/")[2]
            hint = hint or f"; define it with a line such as {example} = 1"
            self._errors.append(f"{place}: the macro %{name} is not defined{hint}")
        elif module != "gin":
            self._modules.add(module)

    def _check_that_all_are_used(self) -> None:
        """What is typed must have an effect. So should what is said in the files that were given.

        Those that they include say more: whoever includes them takes a choice.
        """
        if self._lets_through:  # nobody knows all that may be called
            return
        self._errors += unused.macros(self._read.bindings)
        for binding, reason in unused.settings(self._bindings, self._catalogue, self._tops):
            if binding.is_typed:
                self.unused.append((binding.place, reason))
            elif binding.place.rpartition(":")[0] in self._read.files:
                self._remarks.append(f"{binding.place}: {reason}")

    def _has_parameter(self, item: Configurable, binding: Binding) -> bool:
        if item.signature.accepts_any or item.parameter(binding.parameter):
            return True
        names = item.parameter_names
        hint = did_you_mean(binding.parameter, names)
        if not hint:
            hint = f"; its parameters are: {', '.join(names)}" if names else "; it has none"
        name = self._catalogue.shortest_name(item)
        self._errors.append(f"{binding.place}: {name} has no parameter {binding.parameter}{hint}")
        return False

    def _check_type(self, item: Configurable, binding: Binding) -> None:
        parameter = item.parameter(binding.parameter)
        value = values.transform(binding.value, self._expanded)
        if (
            parameter is None
            or not parameter.annotation
            or values.fits(value, parameter.annotation)
        ):
            return
        if parameter.default is not None and parameter.default == repr(value):
            return  # its own default, whatever the annotation says
        hint = ""
        if isinstance(value, float) and value.is_integer():
            hint = f"; write {int(value)}"
        name = f"{self._catalogue.shortest_name(item)}.{parameter.name}"
        wanted = parameter.annotation.strip("'\"")
        kind = type(value).__name__
        self._errors.append(
            f"{binding.place}: {name} must be {wanted}, not {value!r} of type {kind}{hint}"
        )

    def _check_range(self, item: Configurable, binding: Binding) -> None:
        if item.selector.startswith("tfdrl."):
            value = values.transform(binding.value, self._expanded)
            fault = values.out_of_range(binding.parameter, value)
            if fault:
                name = f"{self._catalogue.shortest_name(item)}.{binding.parameter}"
                self._errors.append(f"{binding.place}: {name} = {value!r} {fault}")

    def _expanded(self, leaf: Any, depth: int = 0) -> Any:
        """The value of a macro that is defined without a scope; other leaves as they are."""
        if isinstance(leaf, values.Macro) and leaf.name in self._macros and depth < 10:
            return values.transform(
                self._macros[leaf.name], lambda inner: self._expanded(inner, depth + 1)
            )
        return leaf

    def _configuration(self) -> Configuration:
        lines = []
        for (scope, selector, parameter), binding in self._bindings.items():
            if (selector, parameter) == ("gin.macro", "value"):
                key = scope
            else:
                prefix = f"{scope}/" if scope else ""
                key = f"{prefix}{self._short_selector(selector)}.{parameter}"
            lines.append(f"{key} = {values.transform(binding.value, self._short_reference)!r}")
        imports = sorted({text for _, _, text in self._read.imports})
        text = "".join(f"{line}\n" for line in imports + sorted(lines))
        digest = hashlib.sha256(text.encode()).hexdigest()[:16]
        modules, remarks = tuple(sorted(self._modules)), tuple(self._remarks)
        return Configuration(text, digest, modules, tuple(imports), remarks)

    def _short_selector(self, selector: str) -> str:
        found = self._catalogue.find(selector)
        return self._catalogue.shortest_name(found[0]) if len(found) == 1 else selector

    def _short_reference(self, leaf: Any) -> Any:
        if isinstance(leaf, values.Reference):
            return dataclasses.replace(leaf, selector=self._short_selector(leaf.selector))
        return leaf
