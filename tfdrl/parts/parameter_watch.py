"""What parameter servers say of themselves, and what they are asked for, by their mailboxes."""

from __future__ import annotations

import threading

from tfdrl.parts import parameter_mailbox, parameter_session
from tfdrl.parts.parameter_session import LostError
from tfdrl.topology import Addresses


class ParameterWatch:
    """What the servers say of themselves, and what they are asked for.

    Args:
      addresses: of the servers, in the order of their tasks.
      caller: who asks, for messages.
    """

    def __init__(self, addresses: Addresses, caller: str):
        addresses = addresses if isinstance(addresses, tuple) else (addresses,)
        self._sessions = []
        for task, address in enumerate(addresses):
            mailbox = parameter_mailbox.Mailbox()
            calls = {
                "is_ready": (mailbox.is_ready, ()),
                "about": (mailbox.about, ()),
                "status": (mailbox.status, ()),
                "rollback": (mailbox.rollback, (mailbox.version,)),
                "checkpoint": (mailbox.checkpoint, ()),
            }
            session = parameter_session.Session(
                f"parameter server {task}", address, mailbox.graph, calls
            )
            self._sessions.append(session)
        self._caller = caller

    def connect(self, timeout_secs: float, stop: threading.Event) -> None:
        """Waits for all servers. Raises UnavailableError."""
        for session in self._sessions:
            parameter_session.connect(
                session, lambda s=session: s.call("is_ready"), timeout_secs, stop, self._caller
            )

    def statuses(self) -> list[dict | None]:
        """By task; None for one that does not answer now."""
        return [self._ask(session) for session in self._sessions]

    def rollback(self, version: int) -> None:
        """Asks all servers to go back: the first to its newest snapshot up to `version`.

        The others take their snapshots a few updates apart, and go back to those nearest to it.

        Raises LostError if one does not answer.
        """
        target = version
        for session in self._sessions:
            taken = [v for v, _ in parameter_mailbox.parse(session.call("status"))["snapshots"]]
            if session is self._sessions[0]:
                target = max((v for v in taken if v <= version), default=version)
            nearest = min(taken, key=lambda v: abs(v - target), default=target)
            session.call("rollback", nearest if session is not self._sessions[0] else target)

    def checkpoint(self) -> None:
        """Asks all servers for a checkpoint."""
        for session in self._sessions:
            session.call("checkpoint")

    def close(self) -> None:
        for session in self._sessions:
            session.close()

    @staticmethod
    def _ask(session) -> dict | None:
        try:
            return parameter_mailbox.parse(session.call("status"))
        except LostError:
            try:
                session.connect()
                return parameter_mailbox.parse(session.call("status"))
            except LostError:
                return None
