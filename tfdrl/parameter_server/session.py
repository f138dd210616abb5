"""A session with one parameter server, with time limits, made anew after the server's restart."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tfdrl.errors import TfdrlError, UnavailableError
from tfdrl.rpc import tcp_timeouts, usage
from tfdrl.runtime.metrics import Every
from tfdrl.topology import Address

#: Of one call: a role that is told to stop meanwhile still ends within 10 s.
CALL_SECS = 5.0
_PROBE_SECS = 1.0
_PAUSE_SECS = 0.2


class LostError(Exception):
    """The server did not answer, or is another one now: `ServerSession.connect` again."""


#: What a server that is away, or was started anew, makes of a call.
_LOST = (
    tf.errors.UnavailableError,
    tf.errors.DeadlineExceededError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.FailedPreconditionError,
    tf.errors.NotFoundError,
    RuntimeError,  # this session was closed meanwhile
)


class ServerSession:
    """Runs parts of a graph on the parameter server at an address.

    Args:
      name: of the server, for messages.
      address: of the server.
      graph: that `calls` are of.
      calls: name -> (fetches, feeds), as `tf.compat.v1.Session.make_callable` takes them.
      call_secs: time limit of one call.
    """

    def __init__(
        self,
        name: str,
        address: Address,
        graph: tf.Graph,
        calls: Mapping[str, tuple[Any, Sequence[tf.Tensor]]],
        call_secs: float = CALL_SECS,
    ):
        self.name, self._address, self._graph = f"{name} at {address}", address, graph
        self._calls, self._call_secs = calls, call_secs
        self._session = None
        self._run: dict[str, Any] = {}
        tcp_timeouts.watch(address)

    @property
    def is_connected(self) -> bool:
        return self._session is not None

    def connect(self) -> None:
        """Begins a session. Raises LostError if nobody listens; a call finds out who it is."""
        self.close()
        try:
            with socket.create_connection((self._address.host, self._address.port), _PROBE_SECS):
                pass
            config = tf.compat.v1.ConfigProto(operation_timeout_in_ms=int(1000 * self._call_secs))
            # The graph is small: it is run as it is.
            config.graph_options.rewrite_options.disable_meta_optimizer = True
            session = tf.compat.v1.Session(f"grpc://{self._address}", self._graph, config)
            self._run = {
                name: session.make_callable(fetches, list(feeds))
                for name, (fetches, feeds) in self._calls.items()
            }
            self._session = session
        except (tf.errors.OpError, OSError) as error:
            raise LostError(_first_line(error)) from None

    def call(self, name: str, *values: Any) -> Any:
        """Runs one of the calls.

        Raises:
          LostError: no answer in time, or from another server than before.
          TfdrlError: the server could not do it, and trying again would not help.
        """
        if self._session is None:
            raise LostError("not connected")
        usage.count_messages(self._address)
        try:
            return self._run[name](*values)
        except _LOST as error:
            raise LostError(_first_line(error)) from None
        except tf.errors.OpError as error:
            raise TfdrlError(f"{self.name} failed: {_first_line(error)}") from error

    def close(self) -> None:
        """Ends the session, without waiting for a server that has gone."""
        session, self._session = self._session, None
        self._run = {}
        if session is not None:
            threading.Thread(target=_close, args=(session,), daemon=True).start()


def connect(
    session: ServerSession, is_ready, timeout_secs: float, stop: threading.Event, caller: str
) -> None:
    """Connects until `is_ready()`; returns early if `stop` is set.

    Args:
      session: to connect.
      is_ready: called after each connection; it may raise LostError, too.
      timeout_secs: how long to try.
      stop: ends the waiting.
      caller: who waits, for messages.

    Raises UnavailableError after the time limit.
    """
    start_secs = time.monotonic()
    is_time_to_say, reason = Every(5.0), "it holds no parameters yet"
    while not stop.is_set():
        try:
            session.connect()
            if is_ready():
                return
        except LostError as error:
            reason = str(error)
        waited_secs = time.monotonic() - start_secs
        if waited_secs > timeout_secs:
            raise UnavailableError(
                f"{caller}: {session.name} did not answer within {timeout_secs:g} s: {reason}"
            )
        if is_time_to_say():
            logging.warning(
                "%s waits for %s (%.0f s of %.0f s): %s",
                caller,
                session.name,
                waited_secs,
                timeout_secs,
                reason,
            )
        stop.wait(_PAUSE_SECS)


def _close(session) -> None:
    with contextlib.suppress(tf.errors.OpError, RuntimeError):
        session.close()


def _first_line(error: Exception) -> str:
    # TensorFlow's text begins with the place in the Python code; after "Node:" comes what happened.
    lines = [line for line in str(error).splitlines() if line.strip()]
    nodes = [number for number, line in enumerate(lines) if line.startswith("Node: ")]
    lines = lines[nodes[0] + 1 :] if nodes else lines
    lines = [line for line in lines if not line.startswith(("From /job", "Graph execution error"))]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
