"""How every channel and server of tfdrl is set up: liveness, sizes, ports."""

from __future__ import annotations

import errno
import os
import resource
import socket
from collections.abc import Iterable

import grpc

from tfdrl.errors import ConfigurationError, TfdrlError, UnavailableError
from tfdrl.topology import Address

#: A host that vanished without a word is noticed after KEEPALIVE_SECS + KEEPALIVE_TIMEOUT_SECS.
KEEPALIVE_SECS = 5.0
KEEPALIVE_TIMEOUT_SECS = 3.0
#: A process that stopped, whose kernel still acknowledges, is noticed after KEEPALIVE_SECS + this
#: (gRPC's own 60 s would hold a stream for a minute). Longer than a busy peer keeps Python's
#: interpreter lock, during which it answers no pings.
PING_TIMEOUT_SECS = 10.0
#: A client finds a restarted server after at most this time.
MAX_RECONNECT_BACKOFF_SECS = 2.0
#: Parameters of 128 million float32 weights.
DEFAULT_MAX_MESSAGE_BYTES = 512 << 20
#: Protocol buffers end at 2 GiB.
LARGEST_MESSAGE_BYTES = (2 << 30) - 1
#: Connections of one server, if the process may have as many files.
MOST_CONNECTIONS = 4096

#: Calls of one connection; our own clients have one connection each, and a few calls at a time.
MAX_STREAMS = 8
#: Calls that have come and that no handler was found for yet.
MAX_PENDING_CALLS = 1024
#: Of one call: a token is short.
MAX_METADATA_BYTES = 8 << 10

Options = list[tuple[str, int]]


def channel_options(max_receive_bytes: int, max_send_bytes: int) -> Options:
    """Options of a client's channel; sizes bound one message."""
    return [
        *_common_options(max_receive_bytes, max_send_bytes),
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", int(MAX_RECONNECT_BACKOFF_SECS * 1000)),
        # How long one attempt to connect may take; gRPC's 20 s would outlive most deadlines.
        ("grpc.min_reconnect_backoff_ms", 3000),
        # A connection of its own, also where a process has several clients of one server.
        ("grpc.use_local_subchannel_pool", 1),
        # A pod that is started anew has another address: its name is asked for again at once, and
        # not after gRPC's 30 s.
        ("grpc.dns_min_time_between_resolutions_ms", 1000),
        # Roles talk to each other directly, also where http_proxy is set for the internet.
        ("grpc.enable_http_proxy", 0),
    ]


def most_connections() -> int:
    """How many a server takes: half of what this process may open, `MOST_CONNECTIONS` at most.

    The other half is for checkpoints, logs and connections of its own: who has no file left can
    neither accept nor save.
    """
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = files == resource.RLIM_INFINITY
    return MOST_CONNECTIONS if unlimited else min(MOST_CONNECTIONS, files // 2)


def server_options(
    max_receive_bytes: int, max_send_bytes: int, max_connections: int | None = None
) -> Options:
    """Options of a server; sizes bound one message.

    Connections beyond `max_connections` (None: `most_connections()`) are closed at once, and their
    clients, who find the server unavailable, try again.
    """
    return [
        ("grpc.max_allowed_incoming_connections", max_connections or most_connections()),
        *_common_options(max_receive_bytes, max_send_bytes),
        # Streams that a peer opens and resets at once cost memory before any of them is looked at.
        ("grpc.max_concurrent_streams", MAX_STREAMS),
        ("grpc.http.overload_protection", 1),
        ("grpc.server.max_pending_requests", MAX_PENDING_CALLS),
        ("grpc.server.max_pending_requests_hard_limit", 2 * MAX_PENDING_CALLS),
        ("grpc.max_metadata_size", MAX_METADATA_BYTES),
        # Without this a second server starts silently on the same port and takes half the calls.
        ("grpc.so_reuseport", 0),
        # By default a server hangs up on clients that ping as often as ours do.
        ("grpc.http2.min_ping_interval_without_data_ms", 1000),
        ("grpc.http2.max_ping_strikes", 0),
    ]


def _common_options(max_receive_bytes: int, max_send_bytes: int) -> Options:
    return [
        ("grpc.max_receive_message_length", max_receive_bytes),
        ("grpc.max_send_message_length", max_send_bytes),
        ("grpc.keepalive_time_ms", int(KEEPALIVE_SECS * 1000)),
        ("grpc.keepalive_timeout_ms", int(KEEPALIVE_TIMEOUT_SECS * 1000)),
        ("grpc.http2.ping_timeout_ms", int(PING_TIMEOUT_SECS * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
    ]


def check_message_bytes(max_message_bytes: int) -> int:
    """Returns it. Raises ConfigurationError outside 1 byte to 2 GiB."""
    if not 1 <= max_message_bytes <= LARGEST_MESSAGE_BYTES:
        raise ConfigurationError(
            f"max_message_bytes={max_message_bytes}; "
            f"it must be between 1 and {LARGEST_MESSAGE_BYTES} (2 GiB)"
        )
    return max_message_bytes


def reach_directly(hosts: Iterable[str]) -> None:
    """Other roles are reached without a proxy, also by Reverb's and TensorFlow's channels.

    Those read http_proxy, which is meant for the internet. What no_proxy says is kept: gRPC reads
    one of both.
    """
    variable = "no_grpc_proxy"
    named = os.environ.get(variable) or os.environ.get("no_proxy") or ""
    found = dict.fromkeys([*named.split(","), "localhost", "127.0.0.1", *hosts])
    os.environ[variable] = ",".join(host for host in found if host)


def require_free_port(address: Address, service: str) -> None:
    """Raises ConfigurationError, naming `service` and the port, if nothing can listen there.

    Also finds a listener that would share the port (SO_REUSEPORT: Reverb, gRPC). For a server
    that listens on every interface, probe Address("::", port). Port 0 is always free.
    """
    failures, bound = [], False
    for family, socket_address in _resolve(address, service):
        try:
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                # As servers do: connections of the last run in TIME_WAIT are no obstacle.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(socket_address)
            bound = True
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise port_in_use(address, service) from None
            failures.append(error)
    if not bound:
        reason = failures[0].strerror
        raise ConfigurationError(
            f"{service} cannot listen on {address}: {reason}; "
            "use an address of this machine and a port that you may bind"
        )


def require_free_port_everywhere(address: Address, service: str) -> None:
    """`require_free_port` on every interface, for a server that cannot be bound to one.

    Not on `address` alone: whoever listens on any interface would share the port with it.
    """
    every_interface = "::" if socket.has_ipv6 else "0.0.0.0"
    require_free_port(Address(every_interface, address.port), service)


def port_in_use(address: Address, service: str) -> ConfigurationError:
    """The error of a port that another process listens on."""
    return ConfigurationError(
        f"{service} cannot listen on {address}: port {address.port} is in use; "
        f"end the process that listens there, or choose another port"
    )


def _resolve(address: Address, service: str) -> list[tuple[int, tuple]]:
    try:
        found = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise ConfigurationError(
            f"{service} cannot listen on {address}: host {address.host!r} is unknown "
            f"({error.strerror}); use a name or an address of this machine"
        ) from None
    return [(family, socket_address) for family, _, _, _, socket_address in found]


def to_tfdrl_error(
    error: grpc.RpcError, caller: str, server: str, call: str, timeout_secs: float
) -> TfdrlError:
    """What a failed call means to a role.

    Args:
      error: as grpc raised it.
      caller: who called, such as "actor 3".
      server: whom, such as "the learner at localhost:8001".
      call: the method, such as "Report".
      timeout_secs: the call's deadline.

    Returns UnavailableError if trying again may help, else ConfigurationError.
    """
    code, details = error.code(), error.details() or ""
    if code in (
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.UNAUTHENTICATED,
    ):
        return ConfigurationError(f"{caller}: {server} refused {call}: {details}")
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return ConfigurationError(
            f"{caller}: {server} does not know {call}; is another service listening there?"
        )
    if code is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in details:
        return ConfigurationError(
            f"{caller}: {call} at {server}: {details}; raise max_message_bytes on both sides"
        )
    return UnavailableError(
        f"{caller}: no answer from {server} to {call} (limit {timeout_secs:g} s): "
        f"{code.name}: {details}"
    )
