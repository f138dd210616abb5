"""How the variables of an agent are spread over parameter servers, and whether both sides agree."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfdrl.errors import ConfigurationError
from tfdrl.parameter_server.protocol import Layout

_END = ("no more", None)  # where one side has fewer variables


def layouts(
    variables: Sequence[tf.Variable],
    shards: int,
    barrier: int = 0,
    moments: Sequence[tf.Variable] = (),
) -> tuple[list[Layout], tuple[tuple[int, ...], ...]]:
    """The layout of each shard, and the indices of its variables.

    The moments are all on the first shard, whose verdict on a gradient holds for all.

    Raises:
      ConfigurationError: more shards than variables, or variables that are not float32.
    """
    others = [f"{v.name} {v.dtype.name}" for v in variables if v.dtype != tf.float32]
    if others:
        raise ConfigurationError(
            f"parameter servers hold float32 variables, but the network has {', '.join(others)}"
        )
    indices = balanced_shards([v.shape.num_elements() for v in variables], shards)
    found = [
        Layout(
            task,
            tuple(variables[i].name.partition(":")[0] for i in mine),
            tuple(tuple(variables[i].shape.as_list()) for i in mine),
            barrier,
            () if task else tuple(variable.shape[0] for variable in moments),
        )
        for task, mine in enumerate(indices)
    ]
    return found, indices


def about(layout: Layout, shards: int, experiment: str) -> dict[str, Any]:
    """What a server says of what it holds; a worker of the same run says the same."""
    variables = [[name, list(shape)] for name, shape in zip(layout.names, layout.shapes)]
    return {
        "task": layout.task,
        "servers": shards,
        "variables": variables + [["running statistics", [n]] for n in layout.moments],
        "experiment": experiment,
    }


def check(served: Mapping[str, Any], expected: Mapping[str, Any], server: str, caller: str) -> None:
    """Raises ConfigurationError that shows both sides if they do not belong together."""
    # Not the names: the second network of a process has other names for the same layers.
    shapes = [[shape for _, shape in it["variables"]] for it in (served, expected)]
    same = [{**it, "variables": None} for it in (served, expected)]
    if same[0] == same[1] and shapes[0] == shapes[1]:
        return
    place = [f"{it.get('task')} of {it.get('servers')}" for it in (served, expected)]
    if place[0] != place[1]:
        raise ConfigurationError(
            f"{caller}: {server} is parameter server {place[0]}, not {place[1]}: give "
            "--parameter_server the addresses in the order of their --task"
        )
    if shapes[0] != shapes[1]:
        theirs, mine = (list(map(_variable, it["variables"])) for it in (served, expected))
        both = itertools.zip_longest(zip(theirs, shapes[0]), zip(mine, shapes[1]), fillvalue=_END)
        first = next((one, other) for (one, i), (other, k) in both if i != k)
        raise ConfigurationError(
            f"{caller} has another network than {server}, which holds {first[0]} where this "
            f"process has {first[1]} ({len(theirs)} and {len(mine)} variables): start all roles "
            "with the same gin file and bindings"
        )
    raise ConfigurationError(
        f"{caller}: {server} belongs to another experiment ({served.get('experiment')!r}; this "
        f"process: {expected.get('experiment')!r}): start all roles with the same gin file and "
        "bindings"
    )


def _variable(pair) -> str:
    name, shape = pair
    return f"{name} {shape}"


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
