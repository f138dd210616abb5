"""Bounds the bytes of large replies that are on their way at a time."""

from __future__ import annotations

import asyncio
import collections

import grpc

#: Nineteen sets of the Nature CNN's parameters, a tenth of a second of 10 Gbit/s.
MOST_BYTES = 128 << 20
#: A reply that nobody takes counts for so long: as long as a role waits for parameters.
LONGEST_SECS = 10.0


class OutgoingReplies:
    """Lets replies of so many bytes be on their way; later ones wait, in the order of their calls.

    What gRPC has to send it keeps until the other side takes it. Without a bound a server would
    hold a copy for each of hundreds of clients of a slow network; and all of them would share that,
    so that none may have its reply within its deadline, where in turns most have.

    For the thread of one event loop.

    Args:
      most_bytes: that are on their way; a larger reply goes alone.
      longest_secs: after which a reply counts no more, taken or not.
    """

    def __init__(self, most_bytes: int = MOST_BYTES, longest_secs: float = LONGEST_SECS):
        self._most_bytes = self._left_bytes = most_bytes
        self._longest_secs = longest_secs
        self._waiting: collections.deque[tuple[int, asyncio.Future]] = collections.deque()

    async def admit(self, size_bytes: int, context: grpc.aio.ServicerContext) -> None:
        """Returns once a reply of this size may be sent, which it is until its call has ended."""
        loop, size_bytes = asyncio.get_running_loop(), min(size_bytes, self._most_bytes)
        turn = loop.create_future()
        self._waiting.append((size_bytes, turn))
        self._let_in()
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # its turn came at the same moment
                self._give_back(size_bytes)
            raise
        held = [size_bytes]

        def end(unused: object = None) -> None:
            if held:
                self._give_back(held.pop())

        context.add_done_callback(end)
        loop.call_later(self._longest_secs, end)

    def _give_back(self, size_bytes: int) -> None:
        self._left_bytes += size_bytes
        self._let_in()

    def _let_in(self) -> None:
        """Those whose turn it is; who has gone away meanwhile is passed over."""
        waiting = self._waiting
        while waiting and (waiting[0][1].done() or waiting[0][0] <= self._left_bytes):
            size_bytes, turn = waiting.popleft()
            if not turn.done():
                self._left_bytes -= size_bytes
                turn.set_result(None)
