"""A client's stream, driven by its own thread or by grpc's three: the same answers and errors."""

import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent import futures

import grpc
import paths
import pytest

from tfdrl.rpc import channels, client_stream
from tfdrl.rpc.client_stream import open_stream

_LEAK_KB = 2000
_METHOD = "/test.Service/Talk"


def talk(requests, context):
    """Answers each message with itself; some it does not answer, or ends with."""
    for data in requests:
        if data == b"refuse":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "for a reason: \u00e4")
        if data == b"end":
            return
        if data == b"wait":
            over = threading.Event()
            context.add_callback(over.set)
            over.wait(20.0)
        yield data + dict(context.invocation_metadata())["name"].encode()


def serve(options=()):
    """A server that talks, and its address."""
    server = grpc.server(futures.ThreadPoolExecutor(8), options=options)
    handlers = {"Talk": grpc.stream_stream_rpc_method_handler(talk)}
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("test.Service", handlers)]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"


@pytest.fixture(scope="module")
def address():
    server, address = serve()
    yield address
    server.stop(0).wait()


@pytest.fixture(params=["one thread", "three threads"])
def stream(request, address, monkeypatch):
    if request.param == "three threads":
        monkeypatch.setattr(client_stream, "one_is_enough", lambda: False)
    with grpc.insecure_channel(address) as channel:
        stream = open_stream(channel, _METHOD, (("name", "!"),), threading.Event())
        yield stream
        stream.close()


def soon():
    return time.monotonic() + 15.0


def test_each_message_has_its_answer(stream):
    large = bytes(range(256)) * 4096
    for data in (b"", b"a", large, b"b"):
        assert stream.ask(data, soon()) == data + b"!"


def test_a_refusal_has_its_code_and_its_words_and_stays(stream):
    assert stream.ask(b"a", soon()) == b"a!"
    for _ in range(2):
        error = stream.ask(b"refuse", soon())
        assert isinstance(error, grpc.RpcError)
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert error.details() == "for a reason: \u00e4"


def test_an_end_is_no_answer(stream):
    assert stream.ask(b"end", soon()) is None
    assert stream.ask(b"a", soon()) is None


def test_a_wait_ends_with_its_time(stream):
    start_secs = time.monotonic()
    assert stream.ask(b"wait", start_secs + 0.3) is None
    assert time.monotonic() - start_secs < 10.0


def test_a_wait_ends_with_a_stop(stream):
    threading.Timer(0.3, stream._stop.set).start()
    start_secs = time.monotonic()
    assert stream.ask(b"wait", soon()) is None
    assert time.monotonic() - start_secs < 10.0


def test_a_stream_closes_at_once_behind_a_wait_that_was_broken_off(stream):
    assert stream.ask(b"wait", time.monotonic() + 0.3) is None
    start_secs = time.monotonic()
    stream.close()
    assert time.monotonic() - start_secs < 10.0


class _Interrupt(Exception):
    """Of a signal's handler."""


def test_a_stream_closes_behind_a_signal_that_broke_off_its_wait(stream):
    def interrupt(*unused):
        raise _Interrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1)).start()
        with pytest.raises(_Interrupt):
            stream.ask(b"wait", soon())
    finally:
        signal.signal(signal.SIGUSR1, before)
    stream.close()


def test_nobody_there():
    with grpc.insecure_channel("127.0.0.1:1") as channel:
        stream = open_stream(channel, _METHOD, (), threading.Event())
        assert stream.ask(b"a", soon()).code() is grpc.StatusCode.UNAVAILABLE
        stream.close()


def test_a_stream_has_one_thread_which_only_watches(address):
    """This release of grpcio has what `_OneThread` needs."""
    with grpc.insecure_channel(address) as channel:
        before = set(threading.enumerate())
        stream = open_stream(channel, _METHOD, (("name", "!"),), threading.Event())
        assert isinstance(stream, client_stream._OneThread)
        stream.ask(b"a", soon())
        mine = [t.name for t in set(threading.enumerate()) - before]
        assert [n for n in mine if "ThreadPool" not in n] == ["inference-watch"]
        stream.close()


def _in_use():
    with open("/proc/self/status") as status:
        resident_kb = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    watches = sum(thread.name == "inference-watch" for thread in threading.enumerate())
    return watches, len(os.listdir("/proc/self/fd")), resident_kb


def _use_streams(channel, count):
    for _ in range(count):
        stream = open_stream(channel, _METHOD, (("name", "!"),), threading.Event())
        stream.ask(bytes(20000), soon())
        stream.close()


def test_streams_leave_nothing(address):
    with grpc.insecure_channel(address) as channel:
        _use_streams(channel, 50)
        _, files, resident_kb = _in_use()
        _use_streams(channel, 200)
        end_secs = time.monotonic() + 10.0
        while _in_use()[0] and time.monotonic() < end_secs:
            time.sleep(0.1)
        watches, files_now, resident_kb_now = _in_use()
        assert watches == 0 and files_now <= files + 2
        assert resident_kb_now - resident_kb < _LEAK_KB


@pytest.mark.parametrize("name", ["_exchange", "_next_event", "poll"])
def test_a_release_in_which_one_thread_is_not_enough_is_said_once(
    address, monkeypatch, caplog, name
):
    def of_another_release(stream, *unused):
        return stream._call.a_name_that_is_gone

    class OfAnotherRelease(client_stream._OneThread):
        pass

    setattr(OfAnotherRelease, name, of_another_release)
    monkeypatch.setattr(client_stream, "_OneThread", OfAnotherRelease)
    client_stream.one_is_enough.cache_clear()
    try:
        with grpc.insecure_channel(address) as channel, caplog.at_level(logging.WARNING):
            for _ in range(2):
                stream = open_stream(channel, _METHOD, (("name", "!"),), threading.Event())
                assert stream.ask(b"a", soon()) == b"a!"
                stream.close()
    finally:
        client_stream.one_is_enough.cache_clear()
    (message,) = caplog.messages
    assert grpc.__version__ in message and "a_name_that_is_gone" in message


_IDLE_CLIENT = f"""
import sys, threading, time, grpc
from tfdrl.rpc import channels
from tfdrl.rpc.client_stream import open_stream

with grpc.insecure_channel(sys.argv[1], channels.channel_options(1000, 1000)) as channel:
    stream = open_stream(channel, "{_METHOD}", (("name", "!"),), threading.Event())
    for secs in (3.5, 0.0):
        print(stream.ask(b"a", time.monotonic() + 15.0))
        time.sleep(secs)
    stream.close()
"""


def test_pings_are_answered_while_an_environment_takes_long(monkeypatch):
    """In a process of its own: a server's threads look after all connections of theirs."""
    monkeypatch.setattr(channels, "KEEPALIVE_SECS", 0.5)
    monkeypatch.setattr(channels, "KEEPALIVE_TIMEOUT_SECS", 2.0)
    monkeypatch.setattr(channels, "PING_TIMEOUT_SECS", 2.0)
    server, address = serve(channels.server_options(1000, 1000))
    environment = {
        **os.environ,
        "PYTHONPATH": paths.python_path(),
        # What grpc itself does for idle connections, in some releases, every 5 s.
        "GRPC_CLIENT_CHANNEL_BACKUP_POLL_INTERVAL_MS": "0",
    }
    done = subprocess.run(
        [sys.executable, "-c", _IDLE_CLIENT, address],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    server.stop(0).wait()
    assert done.stdout.split() == ["b'a!'"] * 2, done.stderr
