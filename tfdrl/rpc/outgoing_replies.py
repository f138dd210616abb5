"""Bounds the bytes of large replies that are on their way at a time."""

from __future__ import annotations

import asyncio
import collections

#: Nineteen sets of the Nature CNN's parameters, a tenth of a second of 10 Gbit/s.
MOST_BYTES = 128 << 20
#: A reply that nobody takes holds others up for so long: as long as a role waits for parameters.
LONGEST_SECS = 10.0
#: Replies that are overdue may take so much memory for each byte that may be on its way.
_OVERDUE_SHARE = 3


class OutgoingReplies:
    """Lets replies of so many bytes be on their way; later ones wait, in the order of their calls.

    What gRPC has to send it keeps until the other side takes it. Without a bound a server would
    hold a copy for each of hundreds of clients of a slow network; and all of them would share that,
    so that none may have its reply within its deadline, where in turns most have.

    A reply that is not taken within `longest_secs` is overdue and makes room for others. grpc.aio
    has no call by which a server could cancel it: until its client's deadline it stays in memory.
    So of overdue ones there may be three times `most_bytes`; further ones keep their room.

    For the thread of one event loop.

    Args:
      most_bytes: that are on their way; a larger reply goes alone, and counts as so many.
      longest_secs: after which a reply is overdue.
    """

    def __init__(self, most_bytes: int = MOST_BYTES, longest_secs: float = LONGEST_SECS):
        self._most_bytes = self._left_bytes = most_bytes
        self._overdue_left_bytes = _OVERDUE_SHARE * most_bytes
        self._longest_secs = longest_secs
        self._waiting: collections.deque[tuple[int, asyncio.Future]] = collections.deque()

    async def admit(self, size_bytes: int, call: asyncio.Task) -> None:
        """Returns once a reply of this size may be sent, which it is until its call has ended."""
        loop, size_bytes = asyncio.get_running_loop(), min(size_bytes, self._most_bytes)
        turn = loop.create_future()
        self._waiting.append((size_bytes, turn))
        self._let_in()
        try:
            await turn
        except asyncio.CancelledError:
            self._give_back(0 if turn.cancelled() else size_bytes)  # its turn may have come
            raise
        self._hold(size_bytes, call, loop)

    def _hold(self, size_bytes: int, call: asyncio.Task, loop: asyncio.AbstractEventLoop) -> None:
        """Counts a reply until its call has ended."""
        is_overdue = has_ended = False

        def is_late() -> None:
            nonlocal is_overdue, timer
            if size_bytes > self._overdue_left_bytes:
                timer = loop.call_later(self._longest_secs, is_late)
                return
            is_overdue = True
            self._overdue_left_bytes -= size_bytes
            self._give_back(size_bytes)

        def end(unused: object) -> None:
            nonlocal has_ended
            if has_ended:
                return
            has_ended = True
            timer.cancel()
            if is_overdue:
                self._overdue_left_bytes += size_bytes
            else:
                self._give_back(size_bytes)

        timer = loop.call_later(self._longest_secs, is_late)
        call.add_done_callback(end)

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
