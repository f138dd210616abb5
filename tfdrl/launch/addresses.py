"""Where the processes of a program listen: the host that each was placed on, and a port there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tfdrl.launch.placement import Node, Placement
from tfdrl.topology import Address, Program, Role


class Addresses(NamedTuple):
    """Addresses by the role's name, one for each replica.

    listeners  of the serving roles
    clusters   of the collectives of the roles that cluster and have several replicas
    """

    listeners: Mapping[str, tuple[Address, ...]]
    clusters: Mapping[str, tuple[Address, ...]]

    @property
    def hosts(self) -> list[str]:
        """All hosts of them, each once."""
        every = [*self.listeners.values(), *self.clusters.values()]
        return list(dict.fromkeys(address.host for there in every for address in there))


def counts(program: Program, placed: Placement) -> Counter:
    """How many ports the processes on each node want, by the node's name."""
    found: Counter = Counter()
    for role in program.roles:
        for node in placed[role.name]:
            found[node.name] += role.serves + _has_cluster(role)
    return found


def assign(program: Program, placed: Placement, ports: Mapping[str, Iterator[int]]) -> Addresses:
    """An address for all that listens.

    Args:
      program: whose roles they are.
      placed: the node of each replica.
      ports: at least `counts` of them, by the node's name.
    """

    def address(node: Node) -> Address:
        return Address(node.host, next(ports[node.name]))

    def each(role: Role) -> tuple[Address, ...]:
        return tuple(address(node) for node in placed[role.name])

    return Addresses(
        {role.name: each(role) for role in program.roles if role.serves},
        {role.name: each(role) for role in program.roles if _has_cluster(role)},
    )


def _has_cluster(role: Role) -> bool:
    return role.clusters and role.replicas > 1
