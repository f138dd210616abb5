"""What a plan wants to know of the loaded gin files beside the architecture's settings."""

from __future__ import annotations

from typing import NamedTuple

import gin


class TableSizes(NamedTuple):
    """Items that a replay holds, and that it has before the first is sampled."""

    max_size: int
    min_size: int


#: Those of `replay.transition_table`, which needs TensorFlow; a test compares them.
DEFAULTS = {
    "Apex": TableSizes(2_000_000, 50_000),
    "R2d2": TableSizes(100_000, 5_000),
    "Seed": TableSizes(100_000, 5_000),
    "Gorila": TableSizes(1_000_000, 50_000),
}


def table_sizes(config) -> TableSizes:
    """Of an architecture's @replay_table."""
    defaults = DEFAULTS[type(config).__name__]
    return TableSizes(
        *(_bound(f"replay_table.{name}", getattr(defaults, name)) for name in TableSizes._fields)
    )


def min_size(config) -> int:
    """Items before the first is sampled."""
    return table_sizes(config).min_size


def _bound(name: str, default):
    try:
        found = gin.query_parameter(name)
    except ValueError:
        return default
    return default if found is None else found
