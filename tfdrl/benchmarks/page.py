"""The figures of a benchmark: as a page of tables and as JSON."""

from __future__ import annotations

from typing import NamedTuple

#: Units that are shown in percent, and with how many decimals.
_PERCENT = {"ratio": 0, "small ratio": 2}


class Figure(NamedTuple):
    """One number with its unit; `aim` is the least that is wanted, if there is such a thing."""

    name: str
    value: float
    unit: str
    aim: float | None = None


class Section(NamedTuple):
    """One table of the page."""

    title: str
    figures: list[Figure]


def as_json(found: list[Section]) -> list[dict]:
    """The sections for json.dump."""
    return [
        {"title": section.title, "figures": [figure._asdict() for figure in section.figures]}
        for section in found
    ]


def as_text(found: list[Section]) -> str:
    """The page."""
    width = max(len(figure.name) for section in found for figure in section.figures)
    lines = []
    for section in found:
        lines += ["", section.title]
        lines += [_line(figure, width) for figure in section.figures]
    return "\n".join(lines[1:])


def _line(figure: Figure, width: int) -> str:
    if figure.unit in _PERCENT:
        number, unit = f"{100 * figure.value:,.{_PERCENT[figure.unit]}f}", "%"
    else:
        decimals = 0 if abs(figure.value) >= 100 else 1 if abs(figure.value) >= 10 else 2
        number, unit = f"{figure.value:,.{decimals}f}", figure.unit
    aim = ""
    if figure.aim is not None:
        verdict = "reached" if figure.value >= figure.aim else "missed"
        wanted = f"{100 * figure.aim:.0f} %" if figure.unit in _PERCENT else f"{figure.aim:g}"
        aim = f"  (aim: {wanted}, {verdict})"
    return f"  {figure.name:<{width}}  {number:>12} {unit}{aim}"
