"""What parameter servers say of themselves, and are asked for, by their control variables."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from tfdrl.parameter_server import session as parameter_server_session
from tfdrl.parameter_server.control import ControlVariables, parse
from tfdrl.parameter_server.session import LostError
from tfdrl.topology import Addresses, each_of

#: One that is stopped must not hold up who watches it, and whoever asked that one to stop.
_CALL_SECS = 2.0
_LOST = object()


class ParameterWatch:
    """What the servers say of themselves, and what they are asked for.

    Args:
      addresses: of the servers, in the order of their tasks.
      caller: who asks, for messages.
    """

    def __init__(self, addresses: Addresses, caller: str):
        addresses = each_of(addresses)
        self._sessions = []
        for task, address in enumerate(addresses):
            control = ControlVariables()
            calls = {
                "is_ready": (control.is_ready, ()),
                "status": (control.status, ()),
                "rollback": (control.rollback, (control.version,)),
                "checkpoint": (control.checkpoint, ()),
                "freeze": (control.freeze, ()),
            }
            session = parameter_server_session.ServerSession(
                f"parameter server {task}", address, control.graph, calls, _CALL_SECS
            )
            self._sessions.append(session)
        self._caller = caller

    def connect(self, timeout_secs: float, stop: threading.Event) -> None:
        """Waits for all servers. Raises UnavailableError."""
        for session in self._sessions:
            parameter_server_session.connect(
                session, lambda s=session: s.call("is_ready"), timeout_secs, stop, self._caller
            )

    def statuses(self) -> list[dict | None]:
        """By task; None for one that does not answer now."""
        return [self._ask(session) for session in self._sessions]

    def rollback(self, version: int) -> dict[int, int]:
        """Asks all servers to go back: the first to its newest snapshot up to `version`.

        The others take their snapshots a few updates apart, and go back to those nearest to it.

        Returns the orders that did not arrive, by task, for `tell`.
        """
        statuses = self.statuses()
        taken = [[v for v, _ in status["snapshots"]] if status else [] for status in statuses]
        target = max((v for v in taken[0] if v <= version), default=version)
        orders = {
            task: min(versions, key=lambda v: abs(v - target), default=target)
            for task, versions in enumerate(taken)
        }
        return self.tell({**orders, 0: target})

    def tell(self, orders: Mapping[int, int]) -> dict[int, int]:
        """Tells servers, by task, which version to go back to; returns those not told."""
        return {
            task: version
            for task, version in orders.items()
            if self._call(self._sessions[task], "rollback", version) is _LOST
        }

    def checkpoint(self) -> bool:
        """Asks all servers for a checkpoint; whether all heard it."""
        return self._all("checkpoint")

    def freeze(self) -> bool:
        """Tells all servers to write no more checkpoints; whether all heard it."""
        return self._all("freeze")

    def close(self) -> None:
        for session in self._sessions:
            session.close()

    def _all(self, name: str) -> bool:
        answers = [self._call(session, name) for session in self._sessions]
        return all(answer is not _LOST for answer in answers)

    @staticmethod
    def _ask(session) -> dict | None:
        text = ParameterWatch._call(session, "status")
        return None if text is _LOST else parse(text)

    @staticmethod
    def _call(session, name: str, *values):
        """What the call gives, or `_LOST`: the next call then begins with a new session."""
        try:
            if not session.is_connected:
                session.connect()
            return session.call(name, *values)
        except LostError:
            session.close()
            return _LOST
