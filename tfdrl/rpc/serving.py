"""How a gRPC service of tfdrl is served: one fixed thread pool, refusals, health checks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent import futures

import grpc
from google.protobuf import message as protobuf

from tfdrl.errors import ConfigurationError
from tfdrl.rpc import connection
from tfdrl.rpc.codec import MessageError
from tfdrl.topology import Address

_LOG = logging.getLogger(__name__)
_MAX_LOGGED_REFUSALS = 100

Handlers = Mapping[str, grpc.RpcMethodHandler]


class RefusedError(Exception):
    """A request that the service will not answer: a status code and a text for the user."""

    def __init__(self, code: grpc.StatusCode, text: str):
        super().__init__(text)
        self.code = code


class Server:
    """Serves one service, and health checks, on one address and nowhere else.

    Attributes:
      address: where it listens, with the real port.

    Args:
      address: host and port; port 0 picks a free one.
      service: full name, such as "tfdrl.v1.Training".
      handlers: by method name.
      threads: size of the pool that runs the handlers.
      max_concurrent_rpcs: calls beyond it get RESOURCE_EXHAUSTED at once.
      max_receive_bytes: bound of one request.
      max_send_bytes: bound of one reply.

    Raises ConfigurationError if the port is in use, the host is not this machine's, or a
    bound is out of range.
    """

    def __init__(
        self,
        address: Address,
        service: str,
        handlers: Handlers,
        *,
        threads: int,
        max_concurrent_rpcs: int,
        max_receive_bytes: int,
        max_send_bytes: int,
    ):
        """Starts to listen."""
        for name, value in (("threads", threads), ("max_concurrent_rpcs", max_concurrent_rpcs)):
            if value < 1:
                raise ConfigurationError(f"{name}={value}; it must be at least 1")
        for max_message_bytes in (max_receive_bytes, max_send_bytes):
            connection.check_message_bytes(max_message_bytes)
        connection.require_free_port(address, service)
        self._pool = futures.ThreadPoolExecutor(threads, thread_name_prefix=service)
        self._server = grpc.server(
            self._pool,
            options=connection.server_options(max_receive_bytes, max_send_bytes),
            maximum_concurrent_rpcs=max_concurrent_rpcs,
        )
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(service, handlers),
                grpc.method_handlers_generic_handler("grpc.health.v1.Health", _health(service)),
            )
        )
        try:
            port = self._server.add_insecure_port(str(address))
        except RuntimeError:
            raise connection.port_in_use(address, service) from None
        self.address = Address(address.host, port)
        self._server.start()

    def close(self, grace_secs: float) -> None:
        """Stops listening; calls in progress have `grace_secs` to end. May be called twice."""
        self._server.stop(grace_secs).wait(grace_secs + 1.0)
        # grpc leaves the pool's threads, which would live until the process ends.
        self._pool.shutdown(wait=False)


def unary(
    method: Callable[[protobuf.Message], bytes], request_type: type[protobuf.Message]
) -> grpc.RpcMethodHandler:
    """A handler that parses, calls `method`, and turns refusals into status codes.

    `method` takes the request and returns the serialised reply, which may be cached. It raises
    RefusedError, or MessageError for INVALID_ARGUMENT.
    """
    logged: set[str] = set()

    def refuse(context: grpc.ServicerContext, code: grpc.StatusCode, text: str) -> None:
        # A fleet of wrong actors that retries must not fill the disk with one line.
        if text not in logged and len(logged) < _MAX_LOGGED_REFUSALS:
            logged.add(text)
            _LOG.warning("refused a request of %s: %s", context.peer(), text)
        context.abort(code, text)

    def answer(data: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return method(request_type.FromString(data))
        except protobuf.DecodeError:
            text = f"{len(data)} bytes that are not a {request_type.DESCRIPTOR.full_name} message"
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, text)
        except MessageError as error:
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except RefusedError as error:
            refuse(context, error.code, str(error))

    # grpc parses nothing itself: it would answer random bytes with INTERNAL.
    return grpc.unary_unary_rpc_method_handler(answer)


def _health(service: str) -> Handlers:
    # grpc.health.v1, written out: HealthCheckRequest is one string, field 1;
    # HealthCheckResponse{status: SERVING} is field 1, value 1.
    name = service.encode()
    known = (b"", b"\x0a" + bytes([len(name)]) + name)

    def check(request: bytes, context: grpc.ServicerContext) -> bytes:
        if request not in known:
            context.abort(grpc.StatusCode.NOT_FOUND, f"only {service} is served here")
        return b"\x08\x01"

    return {"Check": grpc.unary_unary_rpc_method_handler(check)}
