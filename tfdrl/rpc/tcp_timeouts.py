"""Connections that Reverb and TensorFlow make: the kernel is asked to notice when a peer is gone.

tfdrl's own channels have gRPC's keepalive (`connection`). Those of libraries have none, and no
setting for it: when a network loses every packet for half a minute, TCP retries more and more
seldom, and half a minute more may pass after the network is back. With TCP's own time limits such a
connection is closed within `SILENCE_SECS`, and gRPC makes another.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading

from tfdrl.rpc import own_sockets
from tfdrl.rpc.channels import KEEPALIVE_SECS
from tfdrl.topology import Address

#: A peer that acknowledges nothing for so long is gone. Not sooner: those libraries try again
#: after 1, 1.6, 2.6, ... s, which cannot be set either, and each failed attempt delays the next.
SILENCE_SECS = 15.0
_PERIOD_SECS = 1.0


def watch(address: Address) -> None:
    """From now on this process's connections to this port end when their peer is gone.

    Does nothing where the kernel is not Linux.
    """
    if sys.platform == "linux":
        _WATCHER.add(address.port)


class _Watcher:
    """Looks once a second for connections that are new, and sets their time limits."""

    def __init__(self):
        self._lock = threading.Lock()
        self._ports: set[int] = set()
        self._seen: set[int] = set()  # inodes of sockets that need no second look
        self._thread: threading.Thread | None = None
        os.register_at_fork(after_in_child=self._forget)

    def add(self, port: int) -> None:
        with self._lock:
            if port not in self._ports:
                self._ports.add(port)
                self._seen.clear()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="connections", daemon=True)
                self._thread.start()

    def _forget(self) -> None:
        """A forked environment has no thread of ours, and no connection either."""
        self._lock, self._thread = threading.Lock(), None

    def _run(self) -> None:
        wait = threading.Event().wait
        while True:
            self._look()
            wait(_PERIOD_SECS)

    def _look(self) -> None:
        with self._lock:
            there = set()
            for inode, file in own_sockets.files():
                there.add(inode)
                if inode not in self._seen:
                    with contextlib.suppress(OSError):
                        self._tend(file)
                        self._seen.add(inode)
            self._seen &= there

    def _tend(self, file: int) -> None:
        """Sets the limits of a connection to one of the ports; OSError: it has no peer, yet."""
        with own_sockets.opened(file) as connection:
            is_internet = own_sockets.is_internet(connection)
            if is_internet and connection.getpeername()[1] in self._ports:
                set_limits(connection)


def set_limits(connection: socket.socket) -> None:
    """Lets the kernel close a connection whose peer acknowledges nothing for `SILENCE_SECS`."""
    probes = int(SILENCE_SECS - KEEPALIVE_SECS)
    for level, option, value in (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, int(KEEPALIVE_SECS)),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, probes),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(1000 * SILENCE_SECS)),
    ):
        connection.setsockopt(level, option, value)


_WATCHER = _Watcher()
