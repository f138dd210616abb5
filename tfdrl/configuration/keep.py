"""Reads the names of `kept.PACKAGES` from their sources and keeps them: run it after a change.

python -m tfdrl.configuration.keep
"""

from __future__ import annotations

import json

from tfdrl.configuration import kept, source
from tfdrl.configuration.catalogue import may_register, read


def text(top: str) -> str:
    """What names/ should say of the top-level package `top`: a configurable a line, in order."""
    entries = []
    for module, path in source.package_modules(top):
        content = path.read_bytes()
        found = read(module, path) if may_register(content) else None
        if found is not None:
            entries.append(_lines(module, kept.entry(content, found)))
    return "{\n" + ",\n".join(entries) + "\n}\n"


def _lines(module: str, entry: dict) -> str:
    rows = ",\n".join(json.dumps(row) for row in entry.pop("configurables"))
    head = json.dumps(entry)[:-1]
    return f'{json.dumps(module)}: {head}, "configurables": [' + (f"\n{rows}]}}" if rows else "]}")


def main() -> None:
    """Writes the file of every package that is kept."""
    for top in kept.PACKAGES:
        kept.names_file(top).parent.mkdir(exist_ok=True)
        kept.names_file(top).write_text(text(top), encoding="utf-8")


if __name__ == "__main__":
    main()
