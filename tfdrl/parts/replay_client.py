"""Clients of a replay server, whose connections notice when it is gone."""

from __future__ import annotations

import reverb

from tfdrl.rpc import foreign_connections
from tfdrl.topology import Address


def connect(address: Address) -> reverb.Client:
    """A Reverb client; this process's connections to that port get time limits."""
    foreign_connections.watch(address)
    return reverb.Client(str(address))
