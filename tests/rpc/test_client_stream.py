"""A client's stream, driven by its own thread or by grpc's three: the same answers and errors."""

import threading
import time
from concurrent import futures

import grpc
import pytest

from tfdrl.rpc import client_stream
from tfdrl.rpc.client_stream import open_stream

_METHOD = "/test.Service/Talk"


def talk(requests, context):
    """Answers each message with itself; some it does not answer, or ends with."""
    for data in requests:
        if data == b"refuse":
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, "for a reason: \u00e4")
        if data == b"end":
            return
        if data == b"wait":
            time.sleep(2.0)
        yield data + dict(context.invocation_metadata())["name"].encode()


@pytest.fixture(scope="module")
def address():
    server = grpc.server(futures.ThreadPoolExecutor(8))
    handlers = {"Talk": grpc.stream_stream_rpc_method_handler(talk)}
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler("test.Service", handlers)]
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


def _of_another_release(channel, *unused):
    return channel._channel.a_name_that_is_gone


@pytest.fixture(params=["one thread", "three threads"])
def stream(request, address, monkeypatch):
    if request.param == "three threads":
        monkeypatch.setattr(client_stream, "_OneThread", _of_another_release)
    with grpc.insecure_channel(address) as channel:
        stream = open_stream(channel, _METHOD, (("name", "!"),), threading.Event())
        yield stream
        stream.close()


def soon():
    return time.monotonic() + 10.0


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
    assert time.monotonic() - start_secs < 1.5


def test_a_wait_ends_with_a_stop(stream):
    threading.Timer(0.3, stream._stop.set).start()
    start_secs = time.monotonic()
    assert stream.ask(b"wait", soon()) is None
    assert time.monotonic() - start_secs < 1.5


def test_nobody_there(address):
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
