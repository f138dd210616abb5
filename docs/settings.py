"""A hook of mkdocs: tables of gin settings, from the signatures and docstrings of tfdrl.

A page asks for one by a comment, `<!-- settings: apex NStepDqnAgent -->`. On a terminal,
`tfdrl settings` tells the same.
"""

from __future__ import annotations

import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))  # mkdocs runs from anywhere

from tfdrl.configuration import documented

_ASKED = re.compile(r"<!-- settings: ([\w ]+) -->")


def on_page_markdown(markdown: str, **_) -> str:
    """The page with its tables."""
    return _ASKED.sub(lambda asked: "\n".join(map(table, asked[1].split())), markdown)


def table(name: str) -> str:
    """Every explained parameter of a configurable that a gin file may set, as a Markdown table.

    Raises:
      KeyError: tfdrl has no such configurable.
    """
    item = documented.find(name)
    if item is None:
        raise KeyError(name)
    rows = [
        f"| `{name}.{found.name}` | {_default(found.default)} | {_cell(found.about)} |"
        for found in documented.settings(item)
        if found.about
    ]
    head = ["| setting | default | |", "|---|---|---|"]
    return "\n".join([f"\n`{name}` (`{item.module}`)\n", *head, *rows])


def _default(source: str) -> str:
    return "must be set" if source == documented.REQUIRED else f"`{source}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
