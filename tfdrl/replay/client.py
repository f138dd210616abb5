"""A learner's or an actor's connection to a replay server, and how the server is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

import reverb

from tfdrl.errors import ConfigurationError, UnavailableError
from tfdrl.replay.transition_table import TABLE, check_signature
from tfdrl.rpc import tcp_timeouts
from tfdrl.runtime.metrics import Every
from tfdrl.topology import Address


def connect(address: Address) -> reverb.Client:
    """A Reverb client; this process's connections to that port get time limits."""
    tcp_timeouts.watch(address)
    return reverb.Client(str(address))


class ReplayInfo:
    """Asks a replay server how it is, with a time limit.

    Args:
      address: of the replay server.
      timeout_secs: how long it may be unreachable before that is an error.
      table: name of the table to look at.

    Attributes:
      min_size: items from which on it is sampled; None before the first answer.
    """

    def __init__(self, address: Address, timeout_secs: float, table: str = TABLE):
        self._client = connect(address)
        self._address, self._timeout_secs = address, timeout_secs
        self._table = table
        self._answered_secs = time.monotonic()
        self.min_size: int | None = None

    def wait(self, signature, role: str, stop: threading.Event):
        """Waits for the server to come up and compares its items with this role's.

        Raises:
          UnavailableError: nothing answered within the time limit.
          ConfigurationError: its items are of another environment.
        """
        warning_is_due = Every(5.0)
        self._answered_secs = time.monotonic()
        while not stop.is_set():
            info = self.table(timeout_secs=2)
            if info is not None:
                check_signature(info.signature, signature, str(self._address))
                return info
            if warning_is_due():
                logging.warning("%s waits for the replay server at %s", role, self._address)
            self._give_up_after_limit(role)
            stop.wait(0.25)
        return None

    def table(self, timeout_secs: int = 2):
        """Reverb's TableInfo, or None if the server does not answer in time."""
        try:
            info = self._client.server_info(timeout=timeout_secs)
        except Exception:
            return None
        self._answered_secs = time.monotonic()
        if self._table not in info:
            raise ConfigurationError(
                f"the server at {self._address} has no table {self._table!r}, only {sorted(info)}"
            )
        self.min_size = info[self._table].rate_limiter_info.min_size_to_sample
        return info[self._table]

    def check(self) -> str:
        """A sentence on the table's state. Raises UnavailableError past the time limit."""
        info = self.table()
        if info is None:
            self._give_up_after_limit("the learner")
            return f"the replay server at {self._address} does not answer"
        if info.max_times_sampled == 1:  # a queue
            holds = f"holds {info.current_size} items" if info.current_size else "is empty"
            return f"the queue {holds}: are the actors there, and fast enough?"
        least = info.rate_limiter_info.min_size_to_sample
        if info.current_size < least:
            return f"the replay holds {info.current_size} items and is sampled from {least} on"
        return (
            f"the replay holds {info.current_size} items, but its rate limiter wants more of the "
            "actors first: are they there, and fast enough?"
        )

    def size(self) -> int | None:
        """Items in the table; None while the server does not answer."""
        info = self.table()
        return None if info is None else info.current_size

    def _give_up_after_limit(self, role: str) -> None:
        silent_secs = time.monotonic() - self._answered_secs
        if silent_secs > self._timeout_secs:
            raise UnavailableError(
                f"{role}: the replay server at {self._address} did not answer for "
                f"{silent_secs:.0f} s"
            )


def say_why(infos: Sequence[ReplayInfo]) -> None:
    """Warns of each server why it gives no samples.

    Raises:
      UnavailableError: none has answered for its time limit.
    """
    failures = []
    for info in infos:
        try:
            logging.warning("the learner waits for samples: %s", info.check())
        except UnavailableError as error:
            failures.append(error)
    if len(failures) == len(infos):
        raise failures[0]
