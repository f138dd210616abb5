"""How gRPC services of tfdrl are served: one thread pool, refusals, health checks, reflection."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent import futures
from typing import NoReturn

import grpc
from google.protobuf import message as protobuf
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

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
    """Serves on one address and nowhere else, with gRPC's standard health checks and reflection.

    Attributes:
      address: where it listens, with the real port.

    Args:
      address: host and port; port 0 picks a free one.
      services: handlers by method name, by full name of the service, such as
        "tfdrl.v1.Training"; the first names the server in errors.
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
        services: Mapping[str, Handlers],
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
        service = next(iter(services))
        connection.require_free_port(address, service)
        self._pool = futures.ThreadPoolExecutor(threads, thread_name_prefix=service)
        self._server = grpc.server(
            self._pool,
            options=connection.server_options(max_receive_bytes, max_send_bytes),
            maximum_concurrent_rpcs=max_concurrent_rpcs,
        )
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler(*service) for service in services.items()]
        )
        self._watchers = futures.ThreadPoolExecutor(1, thread_name_prefix="health")
        checks = health.HealthServicer(
            experimental_non_blocking=True, experimental_thread_pool=self._watchers
        )
        for name in ("", *services):
            checks.set(name, health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(checks, self._server)
        names = [*services, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(names, self._server)
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
        self._watchers.shutdown(wait=False)


class Refuser:
    """Ends calls with the status of an error, and logs each text once."""

    def __init__(self):
        self._logged: set[str] = set()

    def __call__(
        self, context: grpc.ServicerContext, error: MessageError | RefusedError
    ) -> NoReturn:
        """Aborts the call: INVALID_ARGUMENT for a MessageError. Raises what grpc wants raised."""
        code = getattr(error, "code", grpc.StatusCode.INVALID_ARGUMENT)
        text = str(error)
        # A fleet of wrong actors that retries must not fill the disk with one line.
        if text not in self._logged and len(self._logged) < _MAX_LOGGED_REFUSALS:
            self._logged.add(text)
            _LOG.warning("refused a request of %s: %s", context.peer(), text)
        context.abort(code, text)


def unreadable(data: bytes, request_type: type[protobuf.Message]) -> MessageError:
    """The error of bytes that cannot be parsed."""
    name = request_type.DESCRIPTOR.full_name
    return MessageError(f"{len(data)} bytes that are not a {name} message")


def unary(
    method: Callable[[protobuf.Message], bytes], request_type: type[protobuf.Message]
) -> grpc.RpcMethodHandler:
    """A handler that parses, calls `method`, and turns refusals into status codes.

    `method` takes the request and returns the serialised reply, which may be cached. It raises
    RefusedError, or MessageError for INVALID_ARGUMENT.
    """
    refuse = Refuser()

    def answer(data: bytes, context: grpc.ServicerContext) -> bytes:
        try:
            return method(request_type.FromString(data))
        except protobuf.DecodeError:
            refuse(context, unreadable(data, request_type))
        except (MessageError, RefusedError) as error:
            refuse(context, error)

    # grpc parses nothing itself: it would answer random bytes with INTERNAL.
    return grpc.unary_unary_rpc_method_handler(answer)
