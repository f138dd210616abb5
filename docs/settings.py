"""A hook of mkdocs: tables of gin settings, from the signatures and docstrings of tfdrl.

A page asks for one by a comment, `<!-- settings: apex NStepDqnAgent -->`. Names and defaults are
those that are kept in tfdrl/configuration/names; what they mean is said in docstrings, also those
of the classes above. Nothing of tfdrl is imported.
"""

from __future__ import annotations

import ast
import functools
import json
import pathlib
import re

_PACKAGE = pathlib.Path(__file__).resolve().parents[1] / "tfdrl"
_ASKED = re.compile(r"<!-- settings: ([\w ]+) -->")
_SECTION = re.compile(r"^ *(?:Args|Attributes)[^\n]*:\n((?: +[^\n]+\n|\n)+)", re.MULTILINE)
_ITEM = re.compile(r"^(\w[\w, ]*): +(.*)$")


def on_page_markdown(markdown: str, **_) -> str:
    """The page with its tables."""
    return _ASKED.sub(lambda asked: "\n".join(map(table, asked[1].split())), markdown)


def table(name: str) -> str:
    """Every parameter of a configurable that a gin file may set, as a table in Markdown.

    Raises:
      KeyError: tfdrl has no such configurable.
    """
    qualified, parameters = _configurables()[name]
    module = ".".join(qualified.split(".")[:-1])
    means = _meanings(_definition_of(module, name))
    rows = [
        f"| `{name}.{parameter}` | {_default(rest[1])} | {means[parameter]} |"
        for parameter, *rest in parameters
        if parameter in means and rest[1:]  # what has no default is tfdrl's to give
    ]
    return "\n".join(
        [f"\n`{name}` (`{module}`)\n", "| setting | default | |", "|---|---|---|", *rows]
    )


def _default(source: str) -> str:
    return "must be set" if source == "gin.REQUIRED" else f"`{source}`"


@functools.cache
def _configurables() -> dict[str, tuple[str, list]]:
    kept = json.loads((_PACKAGE / "configuration/names/tfdrl.json").read_text())
    return {
        name: (qualified, parameters)
        for module in kept.values()
        for name, qualified, _, _, parameters, *_ in module["configurables"]
    }


@functools.cache
def _definitions() -> dict[tuple[str, str], ast.AST]:
    """Classes and functions of tfdrl by module and name, and by the name that gin has for them."""
    found = {}
    for path in _PACKAGE.rglob("*.py"):
        module = ".".join(path.relative_to(_PACKAGE.parent).with_suffix("").parts)
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                found[module, node.name] = node
                for constant in (a for d in node.decorator_list for a in getattr(d, "args", ())):
                    found[module, getattr(constant, "value", node.name)] = node
    return found


def _definition_of(module: str, name: str) -> ast.AST:
    return _definitions()[module, name]


def _meanings(definition: ast.AST) -> dict[str, str]:
    """What the docstring says of each parameter, after what those of the classes above say."""
    found: dict[str, str] = {}
    for base in getattr(definition, "bases", ()):
        name = base.id if isinstance(base, ast.Name) else ""
        for (_, other), above in _definitions().items():
            if other == name:
                found.update(_meanings(above))
    return found | _items(ast.get_docstring(definition) or "")


def _items(docstring: str) -> dict[str, str]:
    """{"n_step": "steps of a full window."} of `Args:` or `Attributes:`; "a, b: ..." is of both."""
    section = _SECTION.search(docstring + "\n")
    if not section:
        return {}
    lines, items = section[1].splitlines(), {}
    indent = min(len(line) - len(line.lstrip()) for line in lines if line)
    for line in filter(None, lines):
        item = _ITEM.match(line[indent:])
        if item:
            names = item[1].split(", ")
            items.update(dict.fromkeys(names, item[2]))
        else:
            for name in names:
                items[name] += " " + line.strip()
    return {name: text.replace("|", "\\|") for name, text in items.items()}
