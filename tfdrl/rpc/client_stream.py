"""A stream on which one thread asks, and waits for the answer, by turns.

grpcio's own stream has three threads take turns for each message: one asks, one sends, one is told
of what came. That is half of the CPU time that a message takes. Its unary calls are made by the
caller's thread alone, in a way that has no public name; it does for streams as well (`_OneThread`).
A release of grpcio in which it does not gets the public stream (`_ThreeThreads`).
"""

from __future__ import annotations

import abc
import functools
import logging
import queue
import threading
import time

import grpc

_LOG = logging.getLogger(__name__)
#: How late a stop or a time limit is noticed.
_TICK_SECS = 0.2
#: After so long without a message somebody else looks after the channel.
_IDLE_SECS = 1.0
_TRIAL_SECS = 10.0
_CODES = {code.value[0]: code for code in grpc.StatusCode}
#: What an event is about.
_MESSAGE, _STATUS, _METADATA = "message", "status", "metadata"


class StreamEndedError(grpc.RpcError):
    """How a stream has ended: what `code` and `details` of grpc's own errors say."""

    def __init__(self, code: grpc.StatusCode, details: str):
        super().__init__(f"{code.name}: {details}")
        self.code, self.details = lambda: code, lambda: details


def open_stream(channel: grpc.Channel, method: str, metadata, stop: threading.Event) -> Stream:
    """A new call.

    Args:
      channel: on which.
      method: full name, with slashes.
      metadata: pairs of names and values.
      stop: breaks off every wait.
    """
    kind = _OneThread if one_is_enough() else _ThreeThreads
    return kind(channel, method, metadata, stop)


@functools.cache
def one_is_enough() -> bool:
    """Whether this release of grpcio has all that `_OneThread` uses: tried where nobody answers."""
    stop = threading.Event()
    try:
        with grpc.insecure_channel("unix:///nobody/there") as channel:
            stream = _OneThread(channel, "/none/None", (), stop)
            error = stream.ask(b"", time.monotonic() + _TRIAL_SECS)
            stream.poll(0.0)
            stream.close()
        if not isinstance(error, StreamEndedError):
            raise TypeError(f"{error!r} from nobody")
    except Exception as error:  # whatever another release makes of what has no public name
        _LOG.warning(
            "grpcio %s: streams take three threads, and twice the CPU time in an actor, because "
            "one thread cannot drive them (%s: %s)",
            *(grpc.__version__, type(error).__name__, error),
        )
        return False
    finally:
        stop.set()
    return True


class Stream(abc.ABC):
    """A call of one method. For one thread."""

    def __init__(self, stop: threading.Event):
        self._deadline, self._stop = float("inf"), stop
        self._is_over, self._is_broken_off = threading.Event(), False
        threading.Thread(target=self._watch, name="inference-watch", daemon=True).start()

    def ask(self, data: bytes, deadline: float) -> bytes | grpc.RpcError | None:
        """The reply, or the error that ended the stream; None if none came in time."""
        self._deadline = deadline
        reply = self._exchange(data)
        self._deadline = float("inf")
        return None if self._is_broken_off and isinstance(reply, grpc.RpcError) else reply

    def close(self) -> None:
        """Ends the call."""
        self._is_over.set()
        self._cancel()

    @abc.abstractmethod
    def _exchange(self, data: bytes) -> bytes | grpc.RpcError | None:
        """As `ask`; it may wait for ever, until `_cancel` is called."""

    @abc.abstractmethod
    def _cancel(self) -> None:
        """From any thread."""

    def _watch(self) -> None:
        """Breaks off a wait for a reply: grpc's own has no time limit."""
        while not self._is_over.is_set():
            if self._stop.is_set() or time.monotonic() > self._deadline:
                self._is_broken_off = True
                self._cancel()
                return
            self._pause()

    def _pause(self) -> None:
        """Of the watch, until it looks again."""
        self._is_over.wait(_TICK_SECS)


class _OneThread(Stream):
    """Sends, and looks itself for what came."""

    def __init__(self, channel, method, metadata, stop):
        from grpc._cython import cygrpc

        self._send, self._receive = cygrpc.SendMessageOperation, cygrpc.ReceiveMessageOperation
        begin = (
            ((cygrpc.SendInitialMetadataOperation(metadata, 0),), _METADATA),
            ((cygrpc.ReceiveInitialMetadataOperation(0),), _METADATA),
            ((cygrpc.ReceiveStatusOnClientOperation(0),), _STATUS),
        )
        flags, host, deadline, credentials, context = 0, None, None, None, None
        self._channel = channel._channel
        self._call = self._channel.segregated_call(
            *(flags, method.encode(), host, deadline, metadata, credentials, begin, context)
        )
        self._events = len(begin)  # that are yet to come
        self._status = None
        self._answered_secs = time.monotonic()
        super().__init__(stop)

    def poll(self, secs: float) -> None:
        """Reads and writes what there is on the connection, for so long. From any thread."""
        state = self._channel.check_connectivity_state(False)
        self._channel.watch_connectivity_state(state, time.time() + secs)

    def _exchange(self, data):
        if self._call.operate((self._send(data, 0), self._receive(0)), _MESSAGE):
            self._events += 1
        while self._events:
            event = self._next_event()
            if event.tag is _MESSAGE:
                reply = event.batch_operations[1].message()
                if reply is not None:
                    self._answered_secs = time.monotonic()
                    return reply
        return self._status

    def _next_event(self):
        try:
            event = self._call.next_event()
            self._events -= 1
        except BaseException:  # of a signal's handler: grpc has freed all that it kept for the call
            self._events = 0
            raise
        if event.tag is _STATUS:
            (status,) = event.batch_operations
            code = _CODES.get(status.code(), grpc.StatusCode.UNKNOWN)
            if code is not grpc.StatusCode.OK:
                self._status = StreamEndedError(code, status.details() or "")
        return event

    def _cancel(self):
        self._call.cancel(grpc.StatusCode.CANCELLED.value[0], "broken off")

    def _pause(self):
        is_waiting = self._deadline < float("inf")
        if is_waiting or time.monotonic() - self._answered_secs < _IDLE_SECS:
            super()._pause()
            return
        # The connection is looked at by those who wait for a message. While an environment takes
        # long nobody does, and a peer whose pings nobody answers takes this process for dead.
        try:
            self.poll(_TICK_SECS)
        except ValueError:  # the channel is closed
            super()._pause()

    def close(self):
        super().close()
        # What grpc keeps for the call is freed with the last event. A cancelled call's come at
        # once: no peer is asked.
        while self._events:
            self._next_event()


class _ThreeThreads(Stream):
    """What is sent goes through a queue, as grpc wants an iterator of requests."""

    def __init__(self, channel, method, metadata, stop):
        self._requests: queue.SimpleQueue = queue.SimpleQueue()
        call = functools.partial(channel.stream_stream(method), metadata=metadata)
        self._replies = call(iter(self._requests.get, None))
        super().__init__(stop)

    def _exchange(self, data):
        self._requests.put(data)
        try:
            return next(self._replies)
        except grpc.RpcError as error:
            return error
        except StopIteration:
            return None

    def _cancel(self):
        self._replies.cancel()

    def close(self):
        super().close()
        self._requests.put(None)
