"""The learners of a cluster find each other before TensorFlow is told that they are there.

TensorFlow's own join holds Python's interpreter lock, and its leader waits without a limit: while
it waits no signal is noticed and nothing can be said. So the learners first meet here, on the same
ports: each says one line to the chief, and the chief answers "go" when all have come.
"""

from __future__ import annotations

import contextlib
import json
import logging
import select
import socket
import time
from collections.abc import Iterator, Sequence

from tfdrl.errors import ConfigurationError, UnavailableError
from tfdrl.rpc.channels import require_free_port
from tfdrl.runtime.metrics import Every
from tfdrl.topology import Address, Context

_GO = "go"
_REFUSED = "refused: "
#: What replicas of one run have in common, and the flags that it comes from.
_FLAGS = {"experiment": "--gin_file and --gin_bindings", "cluster": "--cluster"}
_TICK_SECS = 0.2
_SAY_SECS = 5.0
_CONNECT_SECS = 2.0
_MAX_LINE_BYTES = 64 << 10
#: Connections that have not said who they are; port scanners do not fill the chief.
_MAX_UNKNOWN = 64

_LOG = logging.getLogger(__name__)


def meet(context: Context, timeout_secs: float) -> bool:
    """Waits until every replica of `context.cluster` is there, and says every 5 s for whom.

    Args:
      context: of this replica; its `stop` ends the waiting.
      timeout_secs: how long to wait.

    Returns whether all are there; False if told to stop.

    Raises:
      ConfigurationError: the port is in use, or a replica has another configuration, another
        cluster or the same task as one that came before.
      UnavailableError: somebody did not come in time.
    """
    name = f"{context.role} {context.task}"
    address = context.cluster[context.task]
    # TensorFlow's server will listen on every interface.
    require_free_port(Address("0.0.0.0", address.port), f"{name} (--cluster)")
    waiting = _Waiting(context, name, timeout_secs)
    if context.task == 0:
        return _Chief(context, address).gather(waiting)
    return _visit(context, waiting)


class _Waiting:
    """Ticks until stop or the time limit, saying who is missing."""

    def __init__(self, context: Context, name: str, timeout_secs: float):
        self._context, self._name, self._timeout_secs = context, name, timeout_secs
        self._plural = context.role + ("s" if len(context.cluster) > 2 else "")
        self._start_secs = time.monotonic()
        self._is_time_to_say = Every(_SAY_SECS)

    def for_(self, missing: Sequence[int]) -> bool:
        """Whether to go on waiting for these tasks. Raises UnavailableError past the limit."""
        if self._context.stop.is_set():
            return False
        waited_secs = time.monotonic() - self._start_secs
        addresses = ", ".join(str(self._context.cluster[task]) for task in missing)
        if waited_secs >= self._timeout_secs:
            raise UnavailableError(
                f"{self._name}: the {self._plural} at {addresses} did not come within "
                f"{self._timeout_secs:g} s"
            )
        if self._is_time_to_say():
            _LOG.info(
                "%s waits for the %s at %s (%.0f s of %.0f s)",
                self._name,
                self._plural,
                addresses,
                waited_secs,
                self._timeout_secs,
            )
        return True


def _greeting(context: Context) -> dict:
    cluster = [str(address) for address in context.cluster]
    return {"experiment": context.experiment, "cluster": cluster, "task": context.task}


class _Chief:
    """The chief: listens until all have come, and refuses those who do not belong here."""

    def __init__(self, context: Context, address: Address):
        self._context, self._address = context, address
        self._expected = _greeting(context)
        self._guests: dict[int, socket.socket] = {}
        self._unknown: dict[socket.socket, bytes] = {}

    def gather(self, waiting: _Waiting) -> bool:
        """Waits for all, then lets them go. Returns False if told to stop."""
        others = set(range(1, len(self._context.cluster)))
        with contextlib.ExitStack() as sockets, _listen(self._address) as listener:
            sockets.callback(self._close)
            while missing := sorted(others - self._guests.keys()):
                if not waiting.for_(missing):
                    return False
                self._serve(listener)
            for guest in self._guests.values():
                _send(guest, _GO)
        return True

    def _serve(self, listener: socket.socket) -> None:
        known = [*self._guests.values(), *self._unknown]
        ready, _, _ = select.select([listener, *known], [], [], _TICK_SECS)
        for connection in ready:
            if connection is listener:
                self._accept(listener)
            elif connection in self._unknown:
                self._listen_to(connection)
            else:  # a guest says nothing more: it has gone
                self._guests = {t: c for t, c in self._guests.items() if c is not connection}
                connection.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            connection.setblocking(False)
            if len(self._unknown) < _MAX_UNKNOWN:
                self._unknown[connection] = b""
            else:
                connection.close()

    def _listen_to(self, connection: socket.socket) -> None:
        received = b""
        with contextlib.suppress(OSError):
            received = connection.recv(_MAX_LINE_BYTES)
        said = self._unknown.pop(connection) + received
        if b"\n" in said:
            self._welcome(connection, said)
        elif received and len(said) < _MAX_LINE_BYTES:
            self._unknown[connection] = said
        else:
            connection.close()

    def _welcome(self, connection: socket.socket, said: bytes) -> None:
        objection = self._objection(said)
        if objection is None:
            self._guests[json.loads(said)["task"]] = connection
            return
        _LOG.warning("%s 0 refused another %s: %s", *[self._context.role] * 2, objection)
        _send(connection, _REFUSED + objection)
        connection.close()

    def _objection(self, said: bytes) -> str | None:
        try:
            greeting = json.loads(said)
            task = greeting["task"]
            if greeting.keys() != self._expected.keys() or not isinstance(task, int):
                raise ValueError
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return "that is not how replicas of tfdrl greet each other"
        for key, flags in _FLAGS.items():
            if greeting[key] != self._expected[key]:
                theirs = str(greeting[key])[:200]
                return (
                    f"it has another {key} ({theirs}) than {self._context.role} 0 has "
                    f"({self._expected[key]}); all need the same {flags}"
                )
        if not 0 < task < len(self._context.cluster):
            return f"--task={task} is not one of the others' numbers"
        if task in self._guests:
            return f"another process came before it with --task={task}"
        return None

    def _close(self) -> None:
        for connection in [*self._guests.values(), *self._unknown]:
            connection.close()


@contextlib.contextmanager
def _listen(address: Address) -> Iterator[socket.socket]:
    # Beyond loopback an address may be a name that other machines know this one by.
    host = address.host if address.is_loopback else ""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, address.port), family=family) as listener:
        listener.setblocking(False)
        yield listener


def _visit(context: Context, waiting: _Waiting) -> bool:
    """The others: greet the chief until it says go. Returns False if told to stop."""
    others = [task for task in range(len(context.cluster)) if task != context.task]
    chief, line = context.cluster[0], json.dumps(_greeting(context))
    while waiting.for_([0]):
        answer = ""
        with contextlib.suppress(OSError):
            with socket.create_connection((chief.host, chief.port), _CONNECT_SECS) as connection:
                _send(connection, line)
                answer = _answer(connection, waiting, others)
            if answer == _GO:
                return True
            if answer.startswith(_REFUSED):
                who = f"{context.role} {context.task}: {context.role} 0 at {chief}"
                raise ConfigurationError(f"{who} refused it: {answer[len(_REFUSED) :]}")
        context.stop.wait(_TICK_SECS)
    return False


def _answer(connection: socket.socket, waiting: _Waiting, others: Sequence[int]) -> str:
    """The chief's line; empty if it has gone, or if told to stop."""
    said = b""
    while waiting.for_(others):
        if select.select([connection], [], [], _TICK_SECS)[0]:
            received = connection.recv(_MAX_LINE_BYTES)
            said += received
            if b"\n" in said or not received or len(said) > _MAX_LINE_BYTES:
                break
    return said.partition(b"\n")[0].decode(errors="replace")


def _send(connection: socket.socket, line: str) -> None:
    with contextlib.suppress(OSError):  # one that has gone is noticed by reading
        connection.sendall(line.encode() + b"\n")
