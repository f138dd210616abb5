"""Which variable lives on which parameter server."""

from __future__ import annotations

from collections.abc import Sequence

from tfdrl.errors import ConfigurationError


def balanced_shards(sizes: Sequence[int], shards: int) -> tuple[tuple[int, ...], ...]:
    """Spreads variables over shards, the largest first, each to the shard that holds least.

    Args:
      sizes: of the variables, in any unit.
      shards: how many parameter servers.

    Returns:
      For each shard the indices of its variables, in ascending order; every one of them exactly
      once.

    Raises:
      ConfigurationError: more shards than variables; one would hold nothing.
    """
    if not 1 <= shards <= len(sizes):
        raise ConfigurationError(
            f"{shards} parameter servers for the {len(sizes)} variables of the network: each "
            f"holds whole variables; use 1 to {len(sizes)}"
        )
    held: list[list[int]] = [[] for _ in range(shards)]
    loads = [0] * shards
    for index in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        # An empty shard first, so that none stays empty whatever the sizes are.
        shard = min(range(shards), key=lambda s: (bool(held[s]), loads[s], s))
        held[shard].append(index)
        loads[shard] += sizes[index]
    return tuple(tuple(sorted(indices)) for indices in held)
