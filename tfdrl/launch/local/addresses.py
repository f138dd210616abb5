"""Free ports of this machine, and loopback addresses for every process that needs one."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator, Sequence

from tfdrl.errors import ConfigurationError
from tfdrl.launch.addresses import Addresses, assign
from tfdrl.launch.placement import Node
from tfdrl.topology import Program

#: Its cores and memory are shared by all that runs on it.
THIS_MACHINE = Node("", "127.0.0.1")
#: Below the ports that Linux gives to outgoing connections, which come and go.
_PORTS = range(20000, 32768)
#: Held as long as this process lives.
_RESERVATIONS: list[socket.socket] = []


def allocate(program: Program) -> Addresses:
    """Free loopback addresses. Raises ConfigurationError if there are not enough."""
    everywhere = {role.name: [THIS_MACHINE] * role.replicas for role in program.roles}
    return assign(program, everywhere, {THIS_MACHINE.name: free_ports()})


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
