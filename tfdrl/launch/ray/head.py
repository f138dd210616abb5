"""The head of a Ray cluster, watched: without it Ray ends all nodes, and their processes."""

from __future__ import annotations

import socket
import threading
import time

#: Between two looks, and of one.
_LOOK_SECS = 2.0
#: Ray's other nodes, and who is connected to them, end themselves after 60 s without an answer
#: (RAY_gcs_rpc_server_reconnect_timeout_s): the rest of it is for checkpoints. A head that comes
#: back before, with what it knew (Redis), has not been lost.
LIMIT_SECS = 30.0


class Head:
    """Whether the head answers, asked by a thread of its own.

    Args:
      address: "host:port" of its server of the cluster's state.
      limit_secs: without an answer it is lost.

    Attributes:
      address: of it.
      is_lost: whether nobody has accepted a connection there for so long.
    """

    def __init__(self, address: str, limit_secs: float = LIMIT_SECS):
        self.address, self.is_lost, self._limit_secs = address, False, limit_secs
        threading.Thread(target=self._watch, daemon=True, name="ray-head").start()

    def _watch(self) -> None:
        host, _, port = self.address.rpartition(":")
        there, answered_secs = (host.strip("[]"), int(port)), time.monotonic()
        while not self.is_lost:
            time.sleep(_LOOK_SECS)
            try:
                socket.create_connection(there, _LOOK_SECS).close()
                answered_secs = time.monotonic()
            except OSError:
                self.is_lost = time.monotonic() - answered_secs > self._limit_secs
