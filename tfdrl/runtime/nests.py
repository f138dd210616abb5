"""Nests of a form that is known beforehand, made of their leaves.

`tree.unflatten_as` and `tree.map_structure` look again at each call what every part is: 17 us for
what a policy returns, and this 2 us. `tree.flatten` takes less than 1 us.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tree

from tfdrl.types import Nest


def packer(like: Nest) -> Callable[[Sequence[Any]], Nest]:
    """A `pack(leaves)` that returns what `tree.unflatten_as(like, leaves)` does.

    `pack` raises ValueError for another number of leaves.
    """
    make, count = _maker(like), len(tree.flatten(like))
    if make is None:
        return lambda leaves: tree.unflatten_as(like, leaves)

    def pack(leaves):
        if len(leaves) != count:
            raise ValueError(f"a nest of {count} leaves cannot be made of {len(leaves)}")
        return make(iter(leaves))

    return pack


def rows_like(nest: Nest, rows: int) -> Nest:
    """Zeros [rows, ...], into which nests like this one, of [...], can be written."""

    def allocate(leaf):
        leaf = np.asarray(leaf)
        return np.zeros((rows, *leaf.shape), leaf.dtype)

    return tree.map_structure(allocate, nest)


def row_writer(storage: Nest) -> Callable[[int, Nest], None]:
    """A `write(row, nest)` into the arrays of `rows_like`.

    `write` raises ValueError if the nest has another number of leaves.
    """
    arrays = tree.flatten(storage)

    def write(row, nest):
        leaves = tree.flatten(nest)
        if len(leaves) != len(arrays):
            raise ValueError(
                f"a nest of {len(leaves)} leaves, where those before had {len(arrays)}"
            )
        for array, leaf in zip(arrays, leaves):
            array[row] = leaf

    return write


def _maker(like: Nest) -> Callable[[Iterator[Any]], Nest] | None:
    """Makes a nest of the leaves that come; None for forms that are tree's own to know."""
    if not tree.is_nested(like):
        return next
    kind = type(like)
    if kind is dict:
        return _dict_maker(like)
    if kind not in (tuple, list) and not (isinstance(like, tuple) and hasattr(kind, "_fields")):
        return None
    parts = [_maker(part) for part in like]
    if None in parts:
        return None
    if kind in (tuple, list):
        return lambda leaves: kind([part(leaves) for part in parts])
    return lambda leaves: kind(*[part(leaves) for part in parts])


def _dict_maker(like: dict) -> Callable[[Iterator[Any]], Nest] | None:
    """Leaves are in the order of the keys, and keys in that of `like`."""
    parts = {key: _maker(like[key]) for key in sorted(like)}
    if None in parts.values():
        return None

    def make(leaves):
        values = {key: part(leaves) for key, part in parts.items()}
        return {key: values[key] for key in like}

    return make
