"""A queue of unrolls inside the learner's process: bounded, first in, first out."""

from __future__ import annotations

import collections
import threading
import time

import numpy as np
import tree

from tfdrl.errors import TfdrlError
from tfdrl.types import Unrolls


class ClosedError(TfdrlError):
    """The queue was closed while somebody waited."""


class UnrollQueue:
    """Blocks of unrolls in, batches out. A full queue makes those who fill it wait.

    Args:
      capacity: unrolls; at least a batch. A block is let in whole while there is any room.
    """

    def __init__(self, capacity: int):
        self._capacity = capacity
        self._blocks: collections.deque[Unrolls] = collections.deque()
        self._size = 0
        self._changed = threading.Condition()
        self._is_closed = False

    def __len__(self) -> int:
        return self._size

    def put(self, unrolls: Unrolls) -> None:
        """Waits for room, then adds k unrolls. Raises ClosedError."""
        with self._changed:
            while self._size >= self._capacity and not self._is_closed:
                self._changed.wait()
            if self._is_closed:
                raise ClosedError("the queue of unrolls is closed")
            self._blocks.append(unrolls)
            self._size += len(unrolls.version)
            self._changed.notify_all()

    def take(self, batch_size: int, timeout_secs: float) -> Unrolls | None:
        """The oldest `batch_size` unrolls, or None if there are not as many in time."""
        deadline = time.monotonic() + timeout_secs
        with self._changed:
            while self._size < batch_size:
                left_secs = deadline - time.monotonic()
                if self._is_closed or left_secs <= 0:
                    return None
                self._changed.wait(left_secs)
            parts = self._remove(batch_size)
            self._changed.notify_all()
        if len(parts) == 1:
            return parts[0]
        return tree.map_structure(lambda *leaves: np.concatenate(leaves), *parts)

    def close(self) -> None:
        """Who waits, or comes, is sent away."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _remove(self, count: int) -> list[Unrolls]:
        self._size -= count
        parts = []
        while count:
            block = self._blocks.popleft()
            there = len(block.version)
            if there > count:
                rest = tree.map_structure(lambda leaf: leaf[count:], block)  # noqa: B023
                self._blocks.appendleft(rest)
                block = tree.map_structure(lambda leaf: leaf[:count], block)  # noqa: B023
            parts.append(block)
            count -= min(there, count)
        return parts
