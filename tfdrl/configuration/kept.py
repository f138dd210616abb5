"""What source files register, kept from an earlier reading: parsing them takes a second of CPU.

names/ has one JSON file for each package that `tfdrl.configuration.keep` has read. An entry
counts only for source files of the very content that was read, the module's own and those of the
classes it inherits from: one which is out of date costs time and never gives a wrong answer.
"""

from __future__ import annotations

import functools
import hashlib
import json
import pathlib
from collections.abc import Iterable
from typing import Any

from tfdrl.configuration import source
from tfdrl.configuration.registrations import Configurable, Registrations
from tfdrl.configuration.signatures import Parameter, Signature

#: Top-level packages whose names are kept: what every gin file may name without an import line.
PACKAGES = ("tfdrl", "tf_agents")

_NAMES_DIR = pathlib.Path(__file__).parent / "names"


def names_file(top: str) -> pathlib.Path:
    """Where the names of the top-level package `top` are kept."""
    return _NAMES_DIR / f"{top}.json"


def digest(content: bytes) -> str:
    """Tells contents of a source file apart."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()


def find(module: str, path: pathlib.Path, content: bytes) -> Registrations | None:
    """What `module`, the file at `path` with `content`, registers; None if that is not kept."""
    entry = _entries(module.partition(".")[0]).get(module)
    if entry is None or entry["digest"] != digest(content):
        return None
    bases = entry.get("bases", {})
    if bases != _digests(bases):
        return None
    items = tuple(_configurable(row, module, path) for row in entry["configurables"])
    return Registrations(items, tuple(entry["constants"]), entry["is_open"], tuple(bases))


def entry(content: bytes, found: Registrations) -> dict[str, Any]:
    """What is kept of a source file: `find` turns it back into `found`."""
    return {
        "digest": digest(content),
        **({"bases": _digests(found.bases)} if found.bases else {}),
        "is_open": found.is_open,
        "constants": list(found.constants),
        "configurables": [_row(item) for item in found.configurables],
    }


def _digests(modules: Iterable[str]) -> dict[str, str]:
    """Of the modules' source files, as far as there are any."""
    paths = {module: source.module_file(module) for module in modules}
    return {module: digest(path.read_bytes()) for module, path in paths.items() if path}


@functools.cache
def _entries(top: str) -> dict[str, Any]:
    path = names_file(top)
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _row(item: Configurable) -> list[Any]:
    line = int(item.place.rpartition(":")[2])
    parameters = [_short(p.name, p.annotation, p.default) for p in item.signature.parameters]
    row = [item.name, item.selector, line, item.signature.accepts_any, parameters]
    return [*row, item.definition] if item.definition else row


def _configurable(row: list[Any], module: str, path: pathlib.Path) -> Configurable:
    name, selector, line, accepts_any, parameters, *definition = row
    signature = Signature(tuple(Parameter(*fields) for fields in parameters), accepts_any)
    return Configurable(name, selector, module, f"{path}:{line}", signature, *definition)


def _short(*fields: str | None) -> list[str | None]:
    """The fields of a parameter without those at the end that are None, as they are by default."""
    kept = list(fields)
    while kept and kept[-1] is None:
        kept.pop()
    return kept
