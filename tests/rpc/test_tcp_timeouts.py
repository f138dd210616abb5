"""Connections of libraries get TCP's time limits, and nobody else's do."""

import os
import socket
import stat
import subprocess
import sys
import time

import pytest

from tfdrl.rpc import tcp_timeouts
from tfdrl.topology import Address

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's /proc and TCP options")


def _connections():
    """(port of the peer, user timeout in ms, keepalive) of this process's connections."""
    for name in os.listdir("/proc/self/fd"):
        try:
            if not stat.S_ISSOCK(os.fstat(int(name)).st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as found:
                if found.family in (socket.AF_INET, socket.AF_INET6):
                    port = found.getpeername()[1]
                    timeout = found.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
                    alive = found.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
                    yield port, timeout, bool(alive)
        except OSError:
            pass


def _wait_for(condition, limit_secs=10.0):
    deadline_secs = time.monotonic() + limit_secs
    while not condition(list(_connections())):
        assert time.monotonic() < deadline_secs, list(_connections())
        time.sleep(0.1)


def test_of_a_reverb_client_and_of_no_other():
    import reverb

    code = (
        "import reverb, sys; server = reverb.Server([reverb.Table.queue('q', 1)], None);"
        "print(server.port, flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", code], text=True, **pipes) as process:
        try:
            port = int(process.stdout.readline())
            with socket.create_server(("127.0.0.1", 0)) as listener:
                other = listener.getsockname()[1]
                with socket.create_connection(("127.0.0.1", other)):
                    tcp_timeouts.watch(Address("127.0.0.1", port))
                    client = reverb.Client(f"127.0.0.1:{port}")  # after: it is found when it comes
                    assert client.server_info(timeout=10)
                    limit_ms = int(1000 * tcp_timeouts.SILENCE_SECS)
                    _wait_for(lambda found: (port, limit_ms, True) in found)
                    assert (other, 0, False) in list(_connections())
                    # Another port, later: what was passed over is looked at again.
                    tcp_timeouts.watch(Address("127.0.0.1", other))
                    _wait_for(lambda found: (other, limit_ms, True) in found)
        finally:
            process.kill()
