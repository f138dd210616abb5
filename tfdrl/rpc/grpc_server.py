"""How gRPC services of tfdrl are served: one event loop, refusals, health checks, reflection.

All handlers are coroutines of one thread. They compute little, and hundreds of streams cost no
threads; two changes of threads for each message, which a pool of them makes, cost more than all
else that a message needs.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping

import grpc
from google.protobuf import message as protobuf
from grpc_reflection.v1alpha import reflection

from tfdrl.errors import ConfigurationError
from tfdrl.rpc import channels
from tfdrl.rpc.admission import HEALTH, AdmissionControl, BoundedReflection, health_check
from tfdrl.rpc.outgoing_replies import OutgoingReplies
from tfdrl.rpc.security import Security
from tfdrl.rpc.tensors import MessageError
from tfdrl.topology import Address

_LOG = logging.getLogger(__name__)
_MAX_LOGGED_REFUSALS = 100
#: Goes at once, whoever waits.
_SMALL_REPLY_BYTES = 1 << 12

Handlers = Mapping[str, grpc.RpcMethodHandler]


class RefusedError(Exception):
    """A request that the service will not answer: a status code and a text for the user."""

    def __init__(self, code: grpc.StatusCode, text: str):
        super().__init__(text)
        self.code = code


class Server:
    """Serves on one address and nowhere else, with gRPC's standard health checks and reflection.

    Attributes:
      address: where it listens, with the real port.

    Args:
      address: host and port; port 0 picks a free one.
      services: handlers by method name, by full name of the service, such as
        "tfdrl.v1.Training"; the first names the server in errors.
      max_concurrent_rpcs: calls beyond it get RESOURCE_EXHAUSTED at once.
      max_receive_bytes: bound of one request.
      max_send_bytes: bound of one reply.
      max_connections: more are closed at once; None: as many as files allow.
      security: TLS, and a token that all calls but health checks and reflection must carry.

    Raises ConfigurationError if the port is in use, the host is not this machine's, or a
    bound is out of range.
    """

    def __init__(
        self,
        address: Address,
        services: Mapping[str, Handlers],
        *,
        max_concurrent_rpcs: int,
        max_receive_bytes: int,
        max_send_bytes: int,
        max_connections: int | None = None,
        security: Security = Security(),  # noqa: B008  (immutable)
    ):
        """Starts to listen."""
        if max_concurrent_rpcs < 1:
            raise ConfigurationError(
                f"max_concurrent_rpcs={max_concurrent_rpcs}; it must be at least 1"
            )
        for max_message_bytes in (max_receive_bytes, max_send_bytes):
            channels.check_message_bytes(max_message_bytes)
        service = next(iter(services))
        channels.require_free_port(address, service)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=service, daemon=True)
        self._thread.start()
        options = channels.server_options(max_receive_bytes, max_send_bytes, max_connections)
        try:
            port = self._run(self._start(address, services, options, max_concurrent_rpcs, security))
        except RuntimeError:
            self._end_loop()
            raise channels.port_in_use(address, service) from None
        self.address = Address(address.host, port)

    def close(self, grace_secs: float) -> None:
        """Stops listening; calls in progress have `grace_secs` to end. May be called twice."""
        if self._thread.is_alive():
            self._run(self._server.stop(grace_secs))
            self._end_loop()

    async def _start(
        self,
        address: Address,
        services: Mapping[str, Handlers],
        options: channels.Options,
        max_concurrent_rpcs: int,
        security: Security,
    ) -> int:
        # Without a limit of grpc's own, which would count those that only began a call.
        self._server = grpc.aio.server(options=options)
        gate = AdmissionControl(security, max_concurrent_rpcs)
        gated = {
            name: {method: gate.on(handler) for method, handler in handlers.items()}
            for name, handlers in services.items()
        }
        gated[HEALTH] = {"Check": gate.on(health_check(["", *services]), is_open=True)}
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(*service) for service in gated.items()]
        )
        BoundedReflection([*services, HEALTH, reflection.SERVICE_NAME]).add_to(self._server)
        port = security.listen(self._server, address)
        await self._server.start()
        return port

    def _run(self, coroutine: Coroutine):
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()

    def _end_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class RefusalLog:
    """Ends calls with the status of an error, and logs each text once."""

    def __init__(self):
        self._logged: set[str] = set()

    async def __call__(
        self, context: grpc.aio.ServicerContext, error: MessageError | RefusedError
    ) -> None:
        """Aborts the call: INVALID_ARGUMENT for a MessageError. Raises what grpc wants raised."""
        code = getattr(error, "code", grpc.StatusCode.INVALID_ARGUMENT)
        text = str(error)
        # A fleet of wrong actors that retries must not fill the disk with one line.
        if text not in self._logged and len(self._logged) < _MAX_LOGGED_REFUSALS:
            self._logged.add(text)
            _LOG.warning("refused a request of %s: %s", context.peer(), text)
        await context.abort(code, text)


def unreadable(data: bytes, request_type: type[protobuf.Message]) -> MessageError:
    """The error of bytes that cannot be parsed."""
    name = request_type.DESCRIPTOR.full_name
    return MessageError(f"{len(data)} bytes that are not a {name} message")


def unary(
    method: Callable[[protobuf.Message], bytes],
    request_type: type[protobuf.Message],
    outgoing: OutgoingReplies | None = None,
) -> grpc.RpcMethodHandler:
    """A handler that parses, calls `method`, and turns refusals into status codes.

    Args:
      method: takes the request and returns the serialised reply, which may be cached. It raises
        RefusedError, or MessageError for INVALID_ARGUMENT.
      request_type: of the request.
      outgoing: large replies wait for their turn in it, and are made once more when it has come:
        `method` must change nothing.
    """
    refuse = RefusalLog()

    async def answer(data: bytes, context: grpc.aio.ServicerContext) -> bytes:
        try:
            request = request_type.FromString(data)
            reply = method(request)
            if outgoing is not None and len(reply) > _SMALL_REPLY_BYTES:
                # The task in which gRPC sends, too. What waits for the context's end is part of
                # it, and keeps the call until garbage is collected: eight, and the connection's
                # next is refused.
                await outgoing.admit(len(reply), asyncio.current_task())
                reply = method(request)
            return reply
        except protobuf.DecodeError:
            await refuse(context, unreadable(data, request_type))
        except (MessageError, RefusedError) as error:
            await refuse(context, error)

    # grpc parses nothing itself: it would answer random bytes with INTERNAL.
    return grpc.unary_unary_rpc_method_handler(answer)
