"""Writes n-step transitions of N environments to Reverb, each observation once."""

from __future__ import annotations

import logging
import threading
import time

import reverb
import tree

from tfdrl.errors import UnavailableError
from tfdrl.experience.transitions import TransitionBlock
from tfdrl.ops import priorities as priorities_ops
from tfdrl.replay.client import connect
from tfdrl.replay.transition_table import TABLE
from tfdrl.runtime.metrics import Every, WaitingClock
from tfdrl.topology import Address

#: Items between two flushes, and how many may stay unconfirmed: two such groups are under way, so
#: that sending overlaps with acting, and memory is bounded. Reverb warns above 50.
_FLUSH_ITEMS = 24


class TransitionWriter:
    """Streams the rows of one actor and creates the items that refer to them.

    Rows go in the order of time, then environment, so that an item's references are fixed
    distances back: s_t lies n steps of N rows behind the newest row, and s_{t+m} is the same
    stored chunk as the s_t of a later item.

    Args:
      address: of the replay server.
      num_envs: N.
      n: steps of a full window.
      timeout_secs: how long to wait for the replay server before giving up.
      stop: ends the waiting.
    """

    def __init__(
        self,
        address: Address,
        num_envs: int,
        n: int,
        timeout_secs: float,
        stop: threading.Event,
    ):
        client = connect(address)
        self._distance = n * num_envs
        self._writer = client.trajectory_writer(num_keep_alive_refs=self._distance + 1)
        self._address, self._num_envs = address, num_envs
        self._timeout_secs, self._stop = timeout_secs, stop
        self._columns = None
        self.waiting = WaitingClock()
        self.items = 0
        self.bad_priorities = 0

    def write(self, block: TransitionBlock) -> None:
        """Appends the block's T x N rows and creates an item for each valid transition.

        Raises:
          UnavailableError: the replay server did not take the items within the time limit.
        """
        priority, bad = priorities_ops.sanitise(block.priority)
        leaves = [leaf.reshape(-1, *leaf.shape[2:]) for leaf in tree.flatten(block.rows)]
        if self._columns is None:
            self._configure(block, leaves)
        observations = self._observations
        append, create_item = self._writer.append, self._writer.create_item
        start = -1 - self._distance
        ends = (start + block.length_steps.reshape(-1) * self._num_envs).tolist()
        for row, end, is_valid, value in zip(
            zip(*leaves), ends, block.is_valid.reshape(-1).tolist(), priority.reshape(-1).tolist()
        ):
            append(row)
            if is_valid:
                self.items += 1
                item = [column[[start, end]] for column in self._columns[:observations]]
                item += [column[-1:] for column in self._columns[observations:]]
                create_item(TABLE, value, item)
                if self.items % _FLUSH_ITEMS == 0:
                    self._flush()
        self.bad_priorities += bad

    def counters(self) -> dict[str, float]:
        """What an actor reports of its writing."""
        return {"actor/transitions": self.items, "actor/bad_priorities": self.bad_priorities}

    def _configure(self, block: TransitionBlock, leaves) -> None:
        """One chunk for each row, so that an item's two observations drag no others along.

        Shared chunks would make writing a quarter faster, and sampling, of which there is more,
        a third slower.
        """
        self._observations = len(tree.flatten(block.rows.observation))
        for i in range(len(leaves)):
            is_observation = i < self._observations
            self._writer.configure(
                (i,),
                num_keep_alive_refs=self._distance + 1 if is_observation else 1,
                max_chunk_length=1,
            )
        self._writer.append(tuple(leaf[0] for leaf in leaves))  # makes the columns; no item uses it
        self._columns = self._writer.history

    def _flush(self) -> None:
        deadline = time.monotonic() + self._timeout_secs
        warning_is_due = Every(5.0)
        with self.waiting:
            while not self._stop.is_set():
                try:
                    self._writer.flush(_FLUSH_ITEMS, timeout_ms=1000)
                    return
                except reverb.errors.DeadlineExceededError:
                    pass
                if time.monotonic() > deadline:
                    raise UnavailableError(
                        f"the replay server at {self._address} took no items for "
                        f"{self._timeout_secs:.0f} s"
                    )
                if warning_is_due():
                    logging.warning(
                        "waiting for the replay server at %s to take items", self._address
                    )

    def confirm(self, timeout_secs: float) -> None:
        """Waits until the server has all items. Raises reverb's DeadlineExceededError."""
        self._writer.flush(0, timeout_ms=int(1000 * timeout_secs))

    def close(self) -> None:
        """Waits up to two seconds for the inserts that are not confirmed yet."""
        try:
            self.confirm(timeout_secs=2.0)
        except Exception as error:
            logging.warning("some transitions were not confirmed by the replay: %s", error)
