"""Free addresses on this machine for every process of a program that needs one."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from tfdrl.errors import ConfigurationError
from tfdrl.topology import Address, Program

_HOST = "127.0.0.1"
#: Below the ports that Linux gives to outgoing connections, which come and go.
_PORTS = range(20000, 32768)
#: Held as long as this process lives.
_RESERVATIONS: list[socket.socket] = []


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


def free_ports(among: Sequence[int] = _PORTS) -> Iterator[int]:
    """Different ports that nobody listens on, on any interface (Reverb listens on all).

    The roles of a run listen seconds after their ports were drawn: until this process ends, no
    other launcher on this machine draws them.
    """
    for port in random.sample(among, len(among)):
        reservation = _reserve(port)
        if reservation is None:
            continue
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("", port))
            except OSError:
                reservation.close()
                continue
        _RESERVATIONS.append(reservation)
        yield port
    raise ConfigurationError(f"no free port between {among[0]} and {among[-1]}")


def _reserve(port: int) -> socket.socket | None:
    """A name of Linux' abstract namespace, which ends with its process; None if it is taken.

    Like ports, such names are one for all users, and each network namespace has its own.
    """
    reservation = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        reservation.bind(f"\0tfdrl-port-{port}")
    except OSError:
        reservation.close()
        return None
    return reservation
