"""Line charts as SVG: no script, no network, readable at the width of a phone."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from tfdrl.reports import words

#: Of Okabe and Ito, which people who see few colours tell apart; on paper the dashes do.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#444444", "#882255")
_DASHES = ("", "7 3", "2 3", "9 3 2 3")
_WIDTH, _HEIGHT = 420, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 10, 10, 40
_MOST_POINTS = 160


class Curve(NamedTuple):
    """One line, with a band around it where low and high differ: <float64>[k] each, x ascending."""

    label: str
    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray


def line(label: str, x: np.ndarray, y: np.ndarray) -> Curve:
    """A curve without a band."""
    return Curve(label, x, y, y, y)


def chart(
    curves: Sequence[Curve],
    x_label: str,
    y_label: str,
    *,
    target: float | None = None,
    x_words: Callable[[float], str] = words.number,
    from_zero: bool = False,
) -> str:
    """A chart of the curves that have points; "" if none has.

    Args:
      curves: in the order of their colours.
      x_label, y_label: of the axes.
      target: a horizontal line.
      x_words: writes the numbers below the x axis.
      from_zero: the y axis begins at 0.
    """
    drawn = [(number, _thinned(c)) for number, c in enumerate(curves) if len(c.x)]
    drawn = [(number, curve) for number, curve in drawn if len(curve.x)]
    if not drawn:
        return ""
    values = [v for _, c in drawn for v in (c.low.min(), c.high.max())]
    y_ticks = ticks(
        min([*values, *([0.0] if from_zero else [])]), max([*values, *([target] if target else [])])
    )
    x_ticks = ticks(min(c.x[0] for _, c in drawn), max(c.x[-1] for _, c in drawn))
    place = _Axes(x_ticks, y_ticks)
    parts = [
        f'<svg class="chart" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{html.escape(y_label)} against {html.escape(x_label)}">',
        _grid(place, x_ticks, y_ticks, x_label, y_label, x_words),
    ]
    if target is not None:
        y = place.y(target)
        parts.append(
            f'<line class="target" x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}"/>'
        )
    for number, curve in drawn:
        colour, dash = COLOURS[number % len(COLOURS)], _DASHES[number % len(_DASHES)]
        parts.append(_band(place, curve, colour) + _path(place, curve, colour, dash))
    return "\n".join([*parts, "</svg>"])


def legend(curves: Sequence[Curve]) -> str:
    """The labels of the curves that have points, with their lines, as HTML; "" for a single one."""
    if len(curves) < 2:
        return ""
    items = []
    for number, label in ((i, curve.label) for i, curve in enumerate(curves) if len(curve.x)):
        colour, dash = COLOURS[number % len(COLOURS)], _DASHES[number % len(_DASHES)]
        items.append(
            f'<span class="key"><svg viewBox="0 0 28 8"><line x1="0" y1="4" x2="28" y2="4" '
            f'stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dash}"/></svg>'
            f"{html.escape(label)}</span>"
        )
    return f'<p class="legend">{"".join(items)}</p>'


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round numbers from below `low` to above `high`, 1, 2 or 5 times a power of ten apart."""
    if not high > low:
        low, high = low - 0.5 * (abs(low) or 1.0), high + 0.5 * (abs(high) or 1.0)
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * i for i in range(first, last + 1)]


class _Axes:
    """Places of values on the page."""

    def __init__(self, x_ticks: Sequence[float], y_ticks: Sequence[float]):
        self._x0, self._x1, self._y0, self._y1 = x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1]

    def x(self, value: float) -> float:
        part = (value - self._x0) / (self._x1 - self._x0)
        return _LEFT + part * (_WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        part = (value - self._y0) / (self._y1 - self._y0)
        return _HEIGHT - _BOTTOM - part * (_HEIGHT - _TOP - _BOTTOM)


def _thinned(curve: Curve) -> Curve:
    """Finite points of the curve, not more than can be seen."""
    finite = np.isfinite(curve.x) & np.isfinite(curve.y)
    finite &= np.isfinite(curve.low) & np.isfinite(curve.high)
    kept = np.flatnonzero(finite)
    if len(kept) > _MOST_POINTS:
        kept = kept[np.linspace(0, len(kept) - 1, _MOST_POINTS).round().astype(int)]
    return Curve(curve.label, *(np.asarray(part, float)[kept] for part in curve[1:]))


def _grid(place, x_ticks, y_ticks, x_label, y_label, x_words) -> str:
    parts = []
    for value in y_ticks:
        y = place.y(value)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}"/>'
            f'<text class="tick" text-anchor="end" x="{_LEFT - 5}" y="{y + 4:.1f}">'
            f"{_short(value)}</text>"
        )
    every = math.ceil(len(x_ticks) / 6)
    for value in x_ticks[::every]:
        x = place.x(value)
        anchor = "end" if x > _WIDTH - 30 else "middle"
        parts.append(
            f'<text class="tick" text-anchor="{anchor}" x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 15}">'
            f"{_short(value) if x_words is words.number else html.escape(x_words(value))}</text>"
        )
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    parts.append(
        f'<text class="axis" text-anchor="middle" x="{middle:g}" y="{_HEIGHT - 6}">'
        f"{html.escape(x_label)}</text>"
        f'<text class="axis" text-anchor="middle" transform="translate(11 '
        f'{(_TOP + _HEIGHT - _BOTTOM) / 2:g}) rotate(-90)">{html.escape(y_label)}</text>'
    )
    return "\n".join(parts)


def _short(value: float) -> str:
    """120000 -> "120k"."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:g}{name}"
    return f"{round(value, 10):g}"


def _path(place: _Axes, curve: Curve, colour: str, dash: str) -> str:
    places = [(place.x(x), place.y(y)) for x, y in zip(curve.x, curve.y)]
    if len(places) == 1:
        ((x, y),) = places
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return (
        f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="1.8" '
        f'stroke-dasharray="{dash}"/>'
    )


def _band(place: _Axes, curve: Curve, colour: str) -> str:
    if np.array_equal(curve.low, curve.high):
        return ""
    upper = [f"{place.x(x):.1f},{place.y(y):.1f}" for x, y in zip(curve.x, curve.high)]
    lower = [f"{place.x(x):.1f},{place.y(y):.1f}" for x, y in zip(curve.x, curve.low)]
    points = " ".join(upper + lower[::-1])
    return f'<polygon points="{points}" fill="{colour}" fill-opacity="0.15"/>'
