"""Free addresses on this machine for every process of a program that needs one."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from tfdrl.errors import ConfigurationError
from tfdrl.topology import Address, Program

_HOST = "127.0.0.1"
#: Below the ports that Linux gives to outgoing connections, which come and go.
_PORTS = range(20000, 32768)


class Addresses(NamedTuple):
    """Addresses by the role's name, one for each replica.

    listeners  of the serving roles
    clusters   of the collectives of the roles that cluster and have several replicas
    """

    listeners: Mapping[str, tuple[Address, ...]]
    clusters: Mapping[str, tuple[Address, ...]]


def allocate(program: Program) -> Addresses:
    """Free loopback addresses. Raises ConfigurationError if there are not enough."""
    ports = free_ports()

    def one_each(replicas: int) -> tuple[Address, ...]:
        return tuple(Address(_HOST, next(ports)) for _ in range(replicas))

    return Addresses(
        {role.name: one_each(role.replicas) for role in program.roles if role.serves},
        {
            role.name: one_each(role.replicas)
            for role in program.roles
            if role.clusters and role.replicas > 1
        },
    )


def free_ports() -> Iterator[int]:
    """Different ports that nobody listens on, on any interface (Reverb listens on all)."""
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        yield port
    raise ConfigurationError(f"no free port between {_PORTS[0]} and {_PORTS[-1]}")
