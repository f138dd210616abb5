"""The head of a Ray cluster, watched: without it Ray ends all nodes, and their processes."""

from __future__ import annotations

import socket
import threading
import time

_LOOK_SECS = 2.0
#: Of a connection, and of an answer to it.
_ANSWER_SECS = 2.0
#: Ray's other nodes, and who is connected to them, end themselves after 60 s without an answer
#: (RAY_gcs_rpc_server_reconnect_timeout_s): the rest of it is for checkpoints. A head that comes
#: back before, with what it knew (Redis), has not been lost.
LIMIT_SECS = 30.0
#: HTTP/2's beginning and empty settings (RFC 9113, section 3.4): gRPC answers with its own. The
#: kernel alone would accept a connection for a process that is stopped.
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0"


class Head:
    """Whether the head answers, asked by a thread of its own.

    Args:
      address: "host:port" of its server of the cluster's state.
      limit_secs: without an answer it is lost.

    Attributes:
      address: of it.
      is_lost: whether it has not answered for so long.
    """

    def __init__(self, address: str, limit_secs: float = LIMIT_SECS):
        host, _, port = address.rpartition(":")
        self._there = (host.strip("[]"), int(port))
        self.address, self.is_lost, self._limit_secs = address, False, limit_secs
        self._answered = True
        threading.Thread(target=self._watch, daemon=True, name="ray-head").start()

    def answers(self) -> bool:
        """Whether it does now; asked anew unless it was silent at the thread's last look."""
        return self._answered and self._ask()

    def _watch(self) -> None:
        answered_secs = time.monotonic()
        while not self.is_lost:
            time.sleep(_LOOK_SECS)
            self._answered = self._ask()
            if self._answered:
                answered_secs = time.monotonic()
            self.is_lost = time.monotonic() - answered_secs > self._limit_secs

    def _ask(self) -> bool:
        try:
            with socket.create_connection(self._there, _ANSWER_SECS) as connection:
                connection.sendall(_HELLO)
                connection.recv(1)
        except (ConnectionResetError, BrokenPipeError):
            return True  # as who wants TLS may say
        except (OSError, ValueError):  # ValueError: of a name that is none any more
            return False
        return True
