"""What gin can configure, read from source: every name with its parameters, nothing imported.

gin wants a configurable registered, that is its module imported, before it parses a binding to
it. A launcher must not import TensorFlow, yet must tell a typo from a name. So the names come
from the source text, or for files that have not changed from what `kept` has of them.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import re
from collections.abc import Collection, Iterable

from tfdrl.configuration import kept, registrations, signatures, source
from tfdrl.configuration.registrations import Configurable, Registrations

#: A foreign package with more modules than this is searched for the names needed, not read whole.
_SMALL_PACKAGE_MODULES = 60

#: Of tfdrl's own modules, the one whose names give way to those of the packages imported.
_YIELDING = "tfdrl.environments.gymnasium_wrappers"

#: An import statement is one line, but for names in parentheses and a backslash at a line's end.
_IMPORTS_GIN = re.compile(
    rb"(?:^|[;:])[ \t\f]*(?:from[ \t\\\r\n]+gin\b|import\b(?:[^\n\\]|\\\r?\n)*?\bgin\b)",
    re.MULTILINE,
)


@dataclasses.dataclass(frozen=True)
class Catalogue:
    """Configurables and constants of some modules.

    `is_open`: some registration could not be read from the source, so a name that is not here
    may still exist.
    """

    configurables: tuple[Configurable, ...] = ()
    constants: tuple[tuple[str, str], ...] = ()  # (complete name, module)
    is_open: bool = False

    def __add__(self, other: Catalogue) -> Catalogue:
        return Catalogue(
            tuple(dict.fromkeys(self.configurables + other.configurables)),
            tuple(dict.fromkeys(self.constants + other.constants)),
            self.is_open or other.is_open,
        )

    def find(self, selector: str) -> list[Configurable]:
        """The configurables that `selector` (a complete name, or its last parts) may mean."""
        return self._by_suffix.get(selector, [])

    def only(self, selectors: Collection[str]) -> Catalogue:
        """What the selectors mean, and all the constants."""
        found = [item for selector in selectors for item in self.find(selector)]
        return Catalogue(tuple(dict.fromkeys(found)), self.constants, self.is_open)

    def constant_module(self, name: str) -> str | None:
        """The module of the constant of that name; None if there is none."""
        for complete, module in self.constants:
            if complete == name or complete.endswith("." + name):
                return module
        return None

    def shortest_name(self, item: Configurable) -> str:
        """The shortest selector that means `item` alone."""
        parts = item.selector.split(".")
        for start in range(len(parts) - 1, 0, -1):
            name = ".".join(parts[start:])
            if self.find(name) == [item]:
                return name
        return item.selector

    @functools.cached_property
    def _by_suffix(self) -> dict[str, list[Configurable]]:
        suffixes: dict[str, list[Configurable]] = {}
        for item in self.configurables:
            parts = item.selector.split(".")
            for start in range(1, len(parts)):
                suffixes.setdefault(".".join(parts[start:]), []).append(item)
        # As in gin, a complete name means one thing, whatever it is a suffix of.
        suffixes.update((item.selector, [item]) for item in self.configurables)
        return suffixes


def _gin_builtins() -> Catalogue:
    def item(name: str, *parameters: str) -> Configurable:
        signature = signatures.Signature(tuple(map(signatures.Parameter, parameters)))
        return Configurable(name, f"gin.{name}", "gin", "gin", signature)

    builtins = (item("macro", "value"), item("singleton", "constructor"), item("constant"))
    return Catalogue(builtins, (("gin.REQUIRED", "gin"),))


@functools.cache
def catalogue() -> Catalogue:
    """Everything that tfdrl's own modules, and gin itself, register; not `gymnasium_wrappers`."""
    modules = source.package_modules("tfdrl")
    return _gin_builtins() + scan(pair for pair in modules if pair[0] != _YIELDING)


@functools.cache
def gymnasium_wrappers() -> Catalogue:
    """Gymnasium's own wrappers. A user's class may well have the name of one, and goes before."""
    return scan([(_YIELDING, source.module_file(_YIELDING))])


def scan(
    modules: Iterable[tuple[str, pathlib.Path]], names: Collection[str] | None = None
) -> Catalogue:
    """The catalogue of (module, file) pairs; with `names`, of the files that mention one."""
    configurables, constants, is_open = [], [], False
    for module, path in modules:
        content = path.read_bytes()
        if not may_register(content) or (names is not None and not mentions(content, names)):
            continue
        found = kept.find(module, path, content) or read(module, path)
        if found is not None:
            configurables += found.configurables
            constants += ((name, module) for name in found.constants)
            is_open |= found.is_open
    return Catalogue(tuple(configurables), tuple(constants), is_open)


def may_register(content: bytes) -> bool:
    """Whether a source file has what reads like an import of gin: only such a one registers."""
    return b"gin" in content and _IMPORTS_GIN.search(content) is not None


def read(module: str, path: pathlib.Path) -> Registrations | None:
    """What a source file registers, from its syntax tree; None if it has none."""
    tree = source.parse(path)
    return None if tree is None else registrations.read(tree, module, path)


def mentions(content: bytes, names: Collection[str]) -> bool:
    """Whether one of the names stands in a source file as a word."""
    likely = [name for name in names if name.encode() in content]  # much faster than a search
    if not likely:
        return False
    words = "|".join(map(re.escape, likely))
    return re.search(rf"\b(?:{words})\b", content.decode("utf-8", "replace")) is not None


def scan_package(top: str, names: Collection[str]) -> Catalogue:
    """The catalogue of a foreign package: whole if small, else of files that mention `names`."""
    modules = list(source.package_modules(top))
    if len(modules) <= _SMALL_PACKAGE_MODULES:
        return scan(modules)
    return scan(modules, names) if names else Catalogue()
