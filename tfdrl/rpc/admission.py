"""The gate of a server: who may call, how many at a time, and how long nobody may say nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import grpc
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

from tfdrl.rpc.security import Security

#: From the beginning of a call to its first message.
FIRST_MESSAGE_SECS = 30.0
#: Calls that have not sent it yet; one more, and the oldest of them ends.
MAX_SILENT_CALLS = 256
_MAX_REFLECTIONS = 8
_NO_TOKEN = "the token is missing or wrong; give both sides the same --token_file"


class AdmissionControl:
    """Lets in calls that have the token and a first message, and so many at a time.

    A call costs a coroutine from its headers on, and whoever is outside of the gate can begin as
    many as the connections hold. So those that only began give way to those that come: a call
    whose message follows its headers, as every client's does, is not among them for long.

    Args:
      security: of the server.
      most: calls at a time, of all handlers.
    """

    def __init__(self, security: Security, most: int):
        self._security, self._most, self._inside = security, most, 0
        self._silent: dict[asyncio.Task, None] = {}  # reads of first messages, the oldest first

    def on(self, handler: grpc.RpcMethodHandler, is_open: bool = False) -> grpc.RpcMethodHandler:
        """The handler behind the gate: of a coroutine that answers one message or a stream.

        It is called with the bytes of the first message.

        Args:
          handler: unary_unary or stream_stream.
          is_open: needs no token, and is not counted among the calls inside.
        """
        behavior = handler.unary_unary or handler.stream_stream

        async def inside(context: grpc.aio.ServicerContext):
            if not (is_open or self._security.lets_in(context.invocation_metadata() or ())):
                await context.abort(grpc.StatusCode.UNAUTHENTICATED, _NO_TOKEN)
            first = await self._first_message(context)
            if is_open:
                return await behavior(first, context)
            if self._inside >= self._most:
                text = f"{self._most} calls are in progress; try again"
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
            self._inside += 1
            try:
                return await behavior(first, context)
            finally:
                self._inside -= 1

        async def behind_the_gate(messages, context: grpc.aio.ServicerContext):
            try:
                return await inside(context)
            except grpc.aio.AbortError as error:
                # The call has this error, whose frames have the call: until garbage is collected
                # it would be one of the few of its connection, whose next is refused unread.
                del messages, context
                error.__context__ = None
                raise error.with_traceback(None) from None

        # A stream of one request: grpc would read that of a unary call itself, before it asks us,
        # and wait for it for ever. On the wire both are the same.
        if handler.unary_unary is not None:
            return grpc.stream_unary_rpc_method_handler(behind_the_gate)
        return grpc.stream_stream_rpc_method_handler(behind_the_gate)

    async def _first_message(self, context: grpc.aio.ServicerContext) -> bytes:
        reading = asyncio.ensure_future(context.read())
        self._silent[reading] = None
        if len(self._silent) > MAX_SILENT_CALLS:
            oldest = next(iter(self._silent))
            del self._silent[oldest]
            oldest.cancel()
        try:
            done, _ = await asyncio.wait({reading}, timeout=FIRST_MESSAGE_SECS)
            if not done:
                text = f"no message within {FIRST_MESSAGE_SECS:g} s"
                await context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, text)
            if reading.cancelled():
                text = f"{MAX_SILENT_CALLS} later calls have sent no message either; try again"
                await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
            first = reading.result()
            if first is grpc.aio.EOF:
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "a call without a message")
            return first
        finally:
            self._silent.pop(reading, None)
            reading.cancel()


def health_check(names: list[str]) -> grpc.RpcMethodHandler:
    """Answers gRPC's Health/Check for these services, which serve as long as there is an answer."""

    async def check(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
        name = health_pb2.HealthCheckRequest.FromString(data).service
        if name not in names:
            await context.abort(grpc.StatusCode.NOT_FOUND, f"no service {name[:100]!r} here")
        serving = health_pb2.HealthCheckResponse.SERVING
        return health_pb2.HealthCheckResponse(status=serving).SerializeToString()

    return grpc.unary_unary_rpc_method_handler(check)


HEALTH = health.SERVICE_NAME


class BoundedReflection(ReflectionServicer):
    """gRPC's reflection, for a few at a time: nobody needs a token for it."""

    def __init__(self, names: list[str]):
        super().__init__(names)
        self._here = 0

    def add_to(self, server: grpc.aio.Server) -> None:
        """Serves it."""
        reflection_pb2_grpc.add_ServerReflectionServicer_to_server(self, server)

    async def ServerReflectionInfo(self, requests, context) -> AsyncIterator:
        """See the proto of gRPC's reflection."""
        if self._here >= _MAX_REFLECTIONS:
            text = f"{_MAX_REFLECTIONS} ask already; try again"
            await context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
        self._here += 1
        try:
            async for reply in super().ServerReflectionInfo(requests, context):
                yield reply
        finally:
            self._here -= 1
