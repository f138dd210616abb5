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
from tfdrl.rpc import usage
from tfdrl.runtime.metrics import Every, WaitingClock
from tfdrl.topology import Address

#: Items between two flushes, and how many may stay unconfirmed: two such groups are under way, so
#: that sending overlaps with acting, and memory is bounded. Reverb warns above 50.
_FLUSH_ITEMS = 24
#: Rows to a chunk where observations are single frames; else 1.
_FRAMES_CHUNK, _FACTS_CHUNK = 2, 4


class TransitionWriter:
    """Streams the rows of one actor and creates the items that refer to them.

    A row has columns for each environment, so that an item's references are fixed distances back
    in columns of its own: s_t lies n rows behind the newest, and s_{t+m} is the same stored chunk
    as the s_t of a later item. Of stacks of frames, an item refers to the frames of n+k rows.

    Args:
      address: of the replay server.
      num_envs: N.
      n: steps of a full window.
      timeout_secs: how long to wait for the replay server before giving up.
      stop: ends the waiting.
      frame_stack: k, where observations are single frames; else 1.
    """

    def __init__(
        self,
        address: Address,
        num_envs: int,
        n: int,
        timeout_secs: float,
        stop: threading.Event,
        frame_stack: int = 1,
    ):
        client = connect(address)
        self._num_envs, self._n, self._frame_stack = num_envs, n, frame_stack
        self._writer = client.trajectory_writer(num_keep_alive_refs=n + frame_stack)
        self._address = address
        self._timeout_secs, self._stop = timeout_secs, stop
        # Of a chunk that is not full yet, no item can be sent.
        self._flush_items = max(_FLUSH_ITEMS, _FACTS_CHUNK * num_envs * (frame_stack > 1))
        self._columns = None
        self.waiting = WaitingClock()
        self.items = 0
        self.bad_priorities = 0

    def write(self, block: TransitionBlock) -> None:
        """Appends the block's T rows and creates an item for each valid transition.

        Raises:
          UnavailableError: the replay server did not take the items within the time limit.
        """
        priority, bad = priorities_ops.sanitise(block.priority)
        leaves = tree.flatten(block.rows)
        if self._columns is None:
            self._configure(block, leaves)
        facts = block.is_valid.tolist(), priority.tolist(), block.length_steps.tolist()
        for t, row in enumerate(zip(*facts)):
            self._writer.append(self._row(leaves, t))
            for columns, is_valid, value, length_steps in zip(self._columns, *row):
                if is_valid:
                    self._writer.create_item(TABLE, value, self._item(columns, length_steps))
                    self.items += 1
                    if self.items % self._flush_items == 0:
                        self._flush()
        usage.count_messages(self._address, int(block.is_valid.sum()))
        self.bad_priorities += bad

    def _row(self, leaves, t: int) -> tuple:
        return tuple(leaf[t, i] for i in range(self._num_envs) for leaf in leaves)

    def _item(self, columns: tuple, length_steps: int) -> list:
        """What the newest transition refers to, of one environment's columns."""
        n, observations = self._n, self._observations
        if self._frame_stack > 1:
            item = [columns[0][-n - self._frame_stack :]]
        else:
            first = -1 - n
            item = [column[[first, first + length_steps]] for column in columns[:observations]]
        return item + [column[-1:] for column in columns[observations:]]

    def counters(self) -> dict[str, float]:
        """What an actor reports of its writing."""
        return {"actor/transitions": self.items, "actor/bad_priorities": self.bad_priorities}

    def _configure(self, block: TransitionBlock, leaves) -> None:
        """Whole observations have a chunk each, so that an item's two drag no others along.

        Shared chunks would make writing a quarter faster, and sampling, of which there is more,
        a third slower.

        Of single frames an item needs n+k on end, and gets n+k+c-1 with c to a chunk: Pong's 7
        (n = 3, k = 4) are 8 of chunks of 2, as many as two stacks hold. Snappy needs 3 bytes for
        64 that repeat others, 330 for any frame, and Pong's take 495 alone, 430 in twos and 400
        in fours. So a transition takes, in bytes, by c (with actions and numbers, 4 to a chunk):

                              stacks    1      2      3      4
          inserted             3,043  1,324  1,068    988  1,009
          sampled              3,921  4,247  4,017  4,184  4,435
          the server's memory  5,923  3,668  2,867  2,613  2,473
        """
        self._observations = len(tree.flatten(block.rows.observation))
        stacks = self._frame_stack > 1
        observations, facts = (_FRAMES_CHUNK, _FACTS_CHUNK) if stacks else (1, 1)
        for i in range(self._num_envs * len(leaves)):
            is_observation = i % len(leaves) < self._observations
            self._writer.configure(
                (i,),
                num_keep_alive_refs=self._n + self._frame_stack if is_observation else facts,
                max_chunk_length=observations if is_observation else facts,
            )
        for _ in range(self._frame_stack):  # makes the columns; nothing of it is ever seen
            self._writer.append(self._row(leaves, 0))
        columns = self._writer.history
        self._columns = [columns[i : i + len(leaves)] for i in range(0, len(columns), len(leaves))]

    def _flush(self) -> None:
        deadline = time.monotonic() + self._timeout_secs
        warning_is_due = Every(5.0)
        with self.waiting:
            while not self._stop.is_set():
                try:
                    self._writer.flush(self._flush_items, timeout_ms=1000)
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
