"""What is done to a server before a request is read: it stays small, and others are answered.

Raw HTTP/2 comes from the package h2 (`pip install -e .[test]`).
"""

import pathlib
import subprocess
import sys
import threading
import time

import certificates
import grpc
import numpy as np
import pytest
from paths import SUPPORT, python_path

from tfdrl.errors import ConfigurationError, UnavailableError
from tfdrl.rpc import admission, channels
from tfdrl.rpc.run_client import TrainingClient
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.rpc.security import Security
from tfdrl.topology import Address

_ATTACK_SECS = 3.0
_SERVER = """
import sys, time, numpy as np
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.rpc.security import Security
from tfdrl.topology import Address
server = TrainingServer(
    Address("localhost", 0), "digest", security=Security.from_files(*sys.argv[1:3]))
server.publish(1, [np.zeros(10, np.float32)])
print(server.address.port, flush=True)
time.sleep(120)
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tls")
    certificates.make_all(directory)
    return directory


@pytest.fixture
def server():
    server = TrainingServer(Address("127.0.0.1", 0), "digest")
    server.publish(1, [np.zeros(10, np.float32)])
    yield server
    server.close()


def new_client(address, **arguments):
    sender = {"experiment": "digest", "role": "actor", "task": 0, "run_id": 1}
    return TrainingClient(address, **sender, **arguments)


def peak_mb(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


@pytest.mark.slow
@pytest.mark.parametrize("tls", [False, True], ids=["without TLS", "with TLS"])
@pytest.mark.parametrize("kind", ["resets", "resets_on_many", "pings", "half_open"])
def test_a_flood_before_any_request_costs_little_memory_and_shuts_nobody_out(files, kind, tls):
    site = pathlib.Path(pytest.importorskip("h2").__file__).parents[1]
    pair = [str(files / "learner.pem"), str(files / "learner.key")] if tls else []
    authority = str(files / "ours.pem") if tls else ""
    started = {"stdout": subprocess.PIPE, "text": True, "env": {"PYTHONPATH": python_path(site)}}
    process = subprocess.Popen([sys.executable, "-c", _SERVER, *pair], **started)
    try:
        port = process.stdout.readline().strip()
        protection = Security.from_files(authority=authority)
        client = new_client(Address("localhost", int(port)), security=protection)
        client.join(20.0)
        before_mb = peak_mb(process.pid)
        command = [sys.executable, f"{SUPPORT}/hostile_http2.py", kind, "localhost", port]
        command += [str(_ATTACK_SECS), *([authority] if tls else [])]
        attack = subprocess.Popen(command, **started)
        answered = failed = 0
        while attack.poll() is None:
            try:
                client.report(frames=answered)
                answered += 1
            except UnavailableError:
                failed += 1
        count = int(attack.communicate()[0])
        print(f"{kind}: {count} in {_ATTACK_SECS} s, {answered} answers, {failed} failures, "
              f"{before_mb:.0f} to {peak_mb(process.pid):.0f} MB")  # fmt: skip
        assert count >= 1000 and peak_mb(process.pid) < before_mb + 200
        assert answered >= 10 * _ATTACK_SECS and failed <= 1
        client.close()
    finally:
        process.kill()
        process.wait()


def test_a_connection_has_few_streams_at_a_time(server):
    """Whoever opens more waits in its own process, and costs the server nothing."""
    pytest.importorskip("h2")
    import hostile_http2

    connection = hostile_http2.Connection(server.address.host, server.address.port)
    assert connection.max_streams() == channels.MAX_STREAMS
    connection.close()


def silent_calls(server, count):
    """So many calls that have begun and say nothing, on as few channels as there may be."""
    stay = threading.Event()
    opened, calls = [], []
    for i in range(count):
        if i % channels.MAX_STREAMS == 0:
            options = [("grpc.use_local_subchannel_pool", 1)]
            opened.append(grpc.insecure_channel(str(server.address), options))
        method = opened[-1].stream_unary("/tfdrl.v1.Training/Report")
        calls.append(method.future(iter(stay.wait, True), timeout=30))
    return stay, opened, calls


def test_calls_that_say_nothing_give_way_to_those_that_do(server, monkeypatch):
    monkeypatch.setattr(admission, "MAX_SILENT_CALLS", 16)
    stay, opened, calls = silent_calls(server, 40)
    _wait(lambda: sum(call.done() for call in calls) == 24)
    client = new_client(server.address)
    for frames in range(20):
        client.report(frames=frames)
    codes = {call.code().name for call in calls if call.done()}
    assert codes == {"RESOURCE_EXHAUSTED"}
    assert sum(call.done() for call in calls) <= 25  # a report is silent for a moment
    assert server.frames() == 19
    stay.set()
    client.close()
    for channel in opened:
        channel.close()


def test_a_call_that_says_nothing_ends_after_a_while(server, monkeypatch):
    monkeypatch.setattr(admission, "FIRST_MESSAGE_SECS", 0.3)
    stay, (channel,), (call,) = silent_calls(server, 1)
    assert call.code().name == "DEADLINE_EXCEEDED"
    assert "no message within 0.3 s" in call.details()
    stay.set()
    channel.close()


def test_who_has_no_token_is_sent_away_before_he_says_anything(files):
    token = Security.from_files(token_file=str(files / "token"))
    server = TrainingServer(Address("127.0.0.1", 0), "digest", security=token)
    stay, opened, calls = silent_calls(server, 8)
    assert {call.code().name for call in calls} == {"UNAUTHENTICATED"}
    client = new_client(server.address, security=token)
    client.join(5.0)
    with pytest.raises(ConfigurationError, match="the token is missing or wrong"):
        new_client(server.address).report(frames=1)
    client.close()
    stay.set()
    for channel in opened:
        channel.close()
    server.close()


def test_a_call_without_a_message(server):
    with grpc.insecure_channel(str(server.address)) as channel:
        with pytest.raises(grpc.RpcError) as error:
            channel.stream_unary("/tfdrl.v1.Training/Report")(iter([]), timeout=5)
    assert error.value.code().name == "INVALID_ARGUMENT"
    assert "a call without a message" in error.value.details()


def _wait(condition, limit_secs=20.0):
    deadline_secs = time.monotonic() + limit_secs
    while not condition():
        assert time.monotonic() < deadline_secs, "waited in vain"
        time.sleep(0.02)
