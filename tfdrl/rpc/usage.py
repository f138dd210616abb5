"""What this process uses: cores, memory, and the bytes that pass between it and other roles.

Bytes are the kernel's, of each TCP connection (TCP_INFO), so that they are those of the wire,
compressed and encrypted, also where Reverb or TensorFlow talk. Messages are counted where they are
sent: calls, batches of samples, and the unrolls or transitions that an actor inserts.
"""

from __future__ import annotations

import collections
import contextlib
import math
import os
import pathlib
import socket
import struct
import sys
import time
from collections.abc import Mapping
from typing import NamedTuple

from tfdrl.rpc import clocks, own_sockets
from tfdrl.topology import Address, Addresses, each_of

#: Who has connected to this process, by other than an address that it knows.
CLIENTS = "clients"
#: Of struct tcp_info: bytes that the peer has acknowledged, and bytes that came from it.
_BYTES = struct.Struct("=QQ")
_BYTES_OFFSET = 120
_MEMORY_SECS = 8.0


class Flow(NamedTuple):
    """What has passed so far between this process and those of one role."""

    sent_bytes: int = 0
    received_bytes: int = 0
    messages: int = 0


class Usage(NamedTuple):
    """What this process has used so far.

    secs       Unix time
    cpu_secs   of all its threads, and of processes of its own that have ended
    memory_mb  in use; pages that several processes share are divided among them
    flows      by the name of the role at the other end
    """

    secs: float
    cpu_secs: float
    memory_mb: float
    flows: dict[str, Flow]

    def metrics(self, before: Usage) -> dict[str, float]:
        """Rates since an earlier look, as TensorBoard shows them."""
        passed_secs = max(self.secs - before.secs, 1e-3)
        values = {
            "process/cpu_cores": (self.cpu_secs - before.cpu_secs) / passed_secs,
            "process/memory_mb": self.memory_mb,
        }
        for role, flow in self.flows.items():
            old = before.flows.get(role, Flow())
            sent, received, messages = (new - was for new, was in zip(flow, old))
            values[f"traffic/{role}_sent_mb_per_second"] = sent / 1e6 / passed_secs
            values[f"traffic/{role}_received_mb_per_second"] = received / 1e6 / passed_secs
            if flow.messages:
                values[f"traffic/{role}_messages_per_second"] = messages / passed_secs
        return values


#: Messages of this process by the address that they go to. Threads may lose one or two.
_MESSAGES: collections.Counter[Address] = collections.Counter()


def count_messages(address: Address, messages: int = 1) -> None:
    """Counts messages between this process and that at `address`."""
    _MESSAGES[address] += messages


class ProcessUsage:
    """Adds up what this process uses, at each look. For one thread.

    Args:
      peers: addresses by the name of the role there.
      listen: where this process serves; who comes there is one of `CLIENTS`.
    """

    def __init__(self, peers: Mapping[str, Addresses], listen: Address | None = None):
        self._listen = listen
        self._roles = {a: role for role, there in peers.items() for a in each_of(there)}
        self._by_port = {address.port: role for address, role in self._roles.items()}
        self._by_place = {
            place: role for address, role in self._roles.items() for place in _places(address)
        }
        self._seen: dict[int, tuple[int, int]] = {}  # bytes of each socket, by its inode
        self._bytes: dict[str, list[int]] = {role: [0, 0] for role in peers}
        self._memory_mb, self._memory_secs = 0.0, -math.inf

    def look(self) -> Usage:
        """What was used until now. A connection's last bytes, since the look before, are lost."""
        if sys.platform == "linux":
            self._add_bytes()
        messages: collections.Counter[str] = collections.Counter()
        for address, count in list(_MESSAGES.items()):
            messages[self._roles.get(address, "")] += count
        flows = {role: Flow(*count, messages[role]) for role, count in self._bytes.items()}
        return Usage(clocks.unix_secs(), _cpu_secs(), self._memory(), flows)

    def _memory(self) -> float:
        """As of some seconds ago: the kernel walks through all pages to say it."""
        if time.monotonic() - self._memory_secs > _MEMORY_SECS:
            self._memory_mb, self._memory_secs = _memory_mb(), time.monotonic()
        return self._memory_mb

    def _add_bytes(self) -> None:
        there = {}
        for inode, file in own_sockets.files():
            with contextlib.suppress(OSError), own_sockets.opened(file) as connection:
                role = self._role_of(connection)
                if role is None:
                    continue
                info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
                there[inode] = now = _BYTES.unpack_from(info, _BYTES_OFFSET)
                before = self._seen.get(inode, (0, 0))
                total = self._bytes.setdefault(role, [0, 0])
                for way in (0, 1):
                    # A socket of another connection may have the number of one that was closed.
                    grown = now[way] - before[way]
                    total[way] += grown if grown >= 0 else now[way]
        self._seen = there

    def _role_of(self, connection: socket.socket) -> str | None:
        """The role at the other end; None for what is no connection of the run's."""
        if not own_sockets.is_internet(connection):
            return None
        peer = connection.getpeername()[:2]
        if self._listen is not None and connection.getsockname()[1] == self._listen.port:
            return CLIENTS
        host = peer[0].removeprefix("::ffff:")
        return self._by_place.get((host, peer[1])) or self._by_port.get(peer[1])


def _places(address: Address) -> set[tuple[str, int]]:
    """(IP address, port) of everything that the host's name means."""
    with contextlib.suppress(OSError):
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
        return {(place[0], address.port) for *_, place in found}
    return set()


def _cpu_secs() -> float:
    ended = os.times()
    return time.process_time() + ended.children_user + ended.children_system


def _memory_mb() -> float:
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/self/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024 / 1e6
    return 0.0
