"""Ports are probed before anything listens on them, and nothing listens where it should not."""

import os
import resource
import socket
import subprocess
import sys

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tfdrl.errors import EXIT_CONFIGURATION, ConfigurationError
from tfdrl.rpc import channels as rpc_channels
from tfdrl.rpc import grpc_server
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.topology import Address


def listen(host, family=socket.AF_INET, **options):
    listener = socket.socket(family, socket.SOCK_STREAM)
    for option in options.get("options", ()):
        listener.setsockopt(socket.SOL_SOCKET, option, 1)
    listener.bind((host, 0))
    listener.listen(1)
    return listener


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "0.0.0.0"])
def test_port_in_use(host):
    # A listener that would share its port: bind() with SO_REUSEPORT would succeed beside it.
    with listen("127.0.0.1", options=[socket.SO_REUSEPORT]) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"replay .*port {port} is in use") as error:
            rpc_channels.require_free_port(Address(host, port), "replay")
    assert error.value.exit_code == EXIT_CONFIGURATION
    rpc_channels.require_free_port(Address(host, port), "replay")


@pytest.mark.skipif(not socket.has_ipv6, reason="no IPv6")
def test_port_in_use_on_every_interface():
    with listen("127.0.0.1") as listener:
        port = listener.getsockname()[1]
        with pytest.raises(ConfigurationError, match=f"port {port} is in use"):
            rpc_channels.require_free_port(Address("::", port), "replay")


def test_the_probe_leaves_the_port_free():
    address = Address("127.0.0.1", 0)
    with listen("127.0.0.1") as listener:
        address = Address("127.0.0.1", listener.getsockname()[1])
    for _ in range(3):
        rpc_channels.require_free_port(address, "learner")
    with TrainingServerAt(address) as server:
        assert server.address == address


@pytest.mark.parametrize(
    "host, text",
    [("no-such-host.invalid", "host 'no-such-host.invalid' is unknown"), ("192.0.2.1", "assign")],
)
def test_a_host_that_is_not_ours(host, text):
    with pytest.raises(ConfigurationError, match=text):
        TrainingServer(Address(host, 45671), "digest")


def test_a_second_server_on_the_port_is_refused():
    with TrainingServerAt(Address("localhost", 0)) as server:
        with pytest.raises(ConfigurationError, match=f"port {server.address.port} is in use"):
            TrainingServer(server.address, "digest")
        connect("127.0.0.1", server.address.port)


def test_a_server_on_loopback_is_not_on_other_interfaces():
    with TrainingServerAt(Address("127.0.0.1", 0)) as server:
        with pytest.raises(ConnectionRefusedError):
            connect("127.0.0.2", server.address.port)


@pytest.mark.parametrize("max_message_bytes", [0, -1, 1 << 31])
def test_message_bound_out_of_range(max_message_bytes):
    with pytest.raises(ConfigurationError, match=f"max_message_bytes={max_message_bytes}"):
        TrainingServer(Address("localhost", 0), "digest", max_message_bytes=max_message_bytes)


def test_a_server_that_answers_nobody():
    with pytest.raises(ConfigurationError, match="max_concurrent_rpcs=0; it must be at least 1"):
        TrainingServer(Address("localhost", 0), "digest", max_concurrent_rpcs=0)


def test_rpc_needs_no_tensorflow():
    code = (
        "import sys, tfdrl.rpc.run_server, tfdrl.rpc.run_client;"
        "sys.exit(bool({'tensorflow', 'gin', 'gymnasium'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


def connect(host, port):
    socket.create_connection((host, port), timeout=5).close()


class TrainingServerAt:
    def __init__(self, address):
        self._server = TrainingServer(address, "digest")

    def __enter__(self):
        return self._server

    def __exit__(self, *_):
        self._server.close()


def test_connections_beyond_the_bound_are_closed_and_come_in_when_there_is_room():
    bound = grpc_server.Server(
        Address("127.0.0.1", 0),
        {"tests.Nothing": {}},
        max_concurrent_rpcs=10,
        max_receive_bytes=1 << 20,
        max_send_bytes=1 << 20,
        max_connections=3,
    )
    options = rpc_channels.channel_options(1 << 20, 1 << 20)
    channels = [grpc.insecure_channel(str(bound.address), options) for _ in range(4)]
    try:
        for channel in channels[:3]:
            assert health_of(channel, 5.0) == "SERVING"
        with pytest.raises(grpc.RpcError) as error:
            health_of(channels[3], 2.0)
        assert error.value.code() is grpc.StatusCode.UNAVAILABLE
        assert health_of(channels[0], 5.0) == "SERVING"  # who was first is served
        channels[1].close()
        assert health_of(channels[3], 10.0, wait_for_ready=True) == "SERVING"
    finally:
        for channel in channels:
            channel.close()
        bound.close(0)


def health_of(channel, timeout_secs, wait_for_ready=False):
    """The answer to a health check, in gRPC's words."""
    check = health_pb2_grpc.HealthStub(channel).Check
    request = health_pb2.HealthCheckRequest()
    reply = check(request, timeout=timeout_secs, wait_for_ready=wait_for_ready)
    return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)


def test_connections_leave_files_for_the_rest():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (600, hard))
        assert rpc_channels.most_connections() == 300
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert rpc_channels.most_connections() <= rpc_channels.MOST_CONNECTIONS


def test_roles_are_reached_without_a_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "intranet.example")
    monkeypatch.delenv("no_grpc_proxy", raising=False)
    rpc_channels.reach_directly(["10.0.0.7", "learner"])
    rpc_channels.reach_directly(["10.0.0.8"])
    hosts = ["intranet.example", "localhost", "127.0.0.1", "10.0.0.7", "learner", "10.0.0.8"]
    variable = "no_grpc_proxy"
    assert sorted(os.environ[variable].split(",")) == sorted(hosts)
