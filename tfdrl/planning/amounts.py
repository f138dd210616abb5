"""Amounts with units, as one writes them: 0.92ms, 28KB, 10 Gbit/s."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tfdrl.errors import ConfigurationError

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "min": 60.0}
BYTES = {"B": 1.0, "KB": 1e3, "MB": 1e6, "GB": 1e9}
BYTES_PER_SECOND = {"Mbit/s": 1e6 / 8, "Gbit/s": 1e9 / 8, "MB/s": 1e6, "GB/s": 1e9}


def read(text: str, units: Mapping[str, float], where: str) -> float:
    """The amount in the base unit.

    Args:
      text: a number and one of the units, with or without a space.
      units: the base units in one of each.
      where: what it was given for, such as "--cost inference.256=0.92ms".

    Raises:
      ConfigurationError: no number, a negative one, or a unit that is none of these.
    """
    matched = re.fullmatch(r"\s*([\d.]+(?:e[+-]?\d+)?)\s*([A-Za-z/]*)\s*", text)
    number = _number(matched[1]) if matched else None
    if number is None or matched[2] not in units:
        wanted = f"a number with one of the units {', '.join(units)}"
        example = f"1{next(iter(units))}"
        raise ConfigurationError(f"{where}: {text.strip()!r} is not {wanted}, such as {example}")
    return number * units[matched[2]]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def show_bytes(count: float) -> str:
    """Such as "28.2 KB"."""
    unit = next((u for u in ("GB", "MB", "KB") if count >= BYTES[u]), "B")
    return f"{count / BYTES[unit]:.3g} {unit}"
