"""Puts unrolls into a learner's queue, and waits while it is full."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

import reverb
import tree

from tfdrl.errors import UnavailableError
from tfdrl.replay.client import connect
from tfdrl.rpc import usage
from tfdrl.runtime.metrics import Every, WaitingClock
from tfdrl.topology import Address
from tfdrl.types import Unrolls

_STEP_SECS = 1.0


class UnrollWriter:
    """Inserts each unroll as one item; its data is sent once, however many tables refer to it.

    Args:
      address: of the replay server.
      tables: names of the tables; the queue first.
      timeout_secs: how long the server may take nothing before that is an error.
      stop: ends the waiting.
      check_learner: called while waiting; raises if nobody will ever empty the queue.
    """

    def __init__(
        self,
        address: Address,
        tables: Sequence[str],
        timeout_secs: float,
        stop: threading.Event,
        check_learner: Callable[[], None] = lambda: None,
    ):
        self._client = connect(address)
        # Without validation, which would wait for the server without a limit.
        self._writer = self._client.trajectory_writer(num_keep_alive_refs=1, validate_items=False)
        self._check_learner = check_learner
        self._address, self._tables = address, tuple(tables)
        self._timeout_secs, self._stop = timeout_secs, stop
        self.waiting = WaitingClock()
        self.items = 0

    def write(self, unrolls: Unrolls, priorities: Sequence[float] | None = None) -> None:
        """Inserts the unrolls and waits until the queue has taken them all.

        Args:
          unrolls: k of them.
          priorities: of each; None for 1.

        This is the back-pressure that bounds the policy lag: an actor that is ahead of the
        learner does not act.

        Raises:
          UnavailableError: the queue has room or does not answer, and took nothing within the
            time limit; or as `check_learner` raises it.
        """
        leaves = tree.flatten(unrolls)
        for number, row in enumerate(zip(*leaves)):
            self._writer.append(row)
            item = [column[-1:] for column in self._writer.history]
            for table in self._tables:
                priority = 1.0 if priorities is None else float(priorities[number])
                self._writer.create_item(table, priority, item)
            self.items += 1
        usage.count_messages(self._address, len(leaves[0]))
        with self.waiting:
            self._flush()

    def counters(self) -> dict[str, float]:
        """What an actor reports of its writing."""
        return {"actor/unrolls": self.items}

    def _flush(self) -> None:
        deadline = time.monotonic() + self._timeout_secs
        warning_is_due = Every(5.0)
        while not self._stop.is_set():
            try:
                return self._writer.flush(0, timeout_ms=int(1000 * _STEP_SECS))
            except reverb.errors.DeadlineExceededError:
                pass
            self._check_learner()
            is_full, state = self._state()
            if is_full:
                deadline = time.monotonic() + self._timeout_secs  # the learner is slower
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"the queue at {self._address} {state}; it took nothing for "
                    f"{self._timeout_secs:.0f} s"
                )
            if warning_is_due():
                logging.warning("waiting: the queue at %s %s", self._address, state)
        return None

    def _state(self) -> tuple[bool, str]:
        """Whether the queue is full, and in words why it may take nothing."""
        try:
            queue = self._client.server_info(timeout=2)[self._tables[0]]
        except Exception:
            return False, "does not answer"
        if queue.current_size >= queue.max_size:
            return True, "is full: the learner has not taken the unrolls before"
        return False, "has room, and the connection to it is not back yet"

    def close(self) -> None:
        """Gives up what the queue has not taken: unrolls of a run that ends."""
        self._writer.close()
