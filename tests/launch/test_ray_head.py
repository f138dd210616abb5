"""A head of a Ray cluster that is silent: who finds it out, and who waits for it no longer."""

import concurrent.futures
import contextlib
import socket
import socketserver
import sys
import threading
import time
import types

import grpc
import pytest

from tfdrl.errors import ConfigurationError
from tfdrl.launch.launcher import ProcessSpec
from tfdrl.launch.moves import Moves
from tfdrl.launch.ray import agents, cluster, head


@pytest.fixture
def ask_often(monkeypatch):
    """Heads are asked often, and have all the time of a busy machine to answer."""
    monkeypatch.setattr(head, "_LOOK_SECS", 0.02)
    monkeypatch.setattr(head, "_ANSWER_SECS", 20.0)


@contextlib.contextmanager
def _served(port=0):
    """The port of a gRPC server, as a head has."""
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    port = server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


def test_a_head_is_lost_when_it_has_been_silent_for_long(ask_often):
    with _served() as port:
        watched = head.Head(f"127.0.0.1:{port}", limit_secs=0.2)
        patient = head.Head(f"127.0.0.1:{port}", limit_secs=1000.0)
        assert watched.answers() and not watched.is_lost
    _until(lambda: watched.is_lost)
    _until(lambda: not patient.answers())
    with _served(port):  # it has come back
        _until(patient.answers)
    assert not patient.is_lost


def test_a_head_that_is_stopped_does_not_answer(ask_often, monkeypatch):
    """Its kernel accepts connections all the same."""
    monkeypatch.setattr(head, "_ANSWER_SECS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as nobody_accepts:
        watched = head.Head(f"127.0.0.1:{nobody_accepts.getsockname()[1]}", limit_secs=0.2)
        _until(lambda: watched.is_lost)


def test_a_head_that_wants_another_protocol_is_there(ask_often):
    class Refuses(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.recv(1)  # and the rest is unread: the connection is reset

    with socketserver.TCPServer(("127.0.0.1", 0), Refuses) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        assert head.Head(f"127.0.0.1:{server.server_address[1]}").answers()
        server.shutdown()


class _OneNode:
    """Ray's library, connected to a cluster that is its head; counts the questions."""

    def __init__(self, port):
        self.asked, self._address = 0, f"127.0.0.1:{port}"

    def init(self, **unused):
        """There it is."""

    def get_runtime_context(self):
        return types.SimpleNamespace(gcs_address=self._address)

    def remote(self, **unused):
        actor = types.SimpleNamespace(remote=lambda *unused: _FailedAgent())
        return lambda kind: actor

    def nodes(self):
        self.asked += 1
        names = {"NodeID": "1", "NodeManagerHostname": "head", "NodeManagerAddress": "127.0.0.1"}
        return [{**names, "Alive": True}]


def test_nothing_is_asked_of_a_head_that_is_silent(ask_often, monkeypatch, tmp_path):
    """Its roles fail with it, long before it counts as lost; Ray would let the launcher wait."""
    state = types.SimpleNamespace(available_resources_per_node=dict)
    monkeypatch.setitem(sys.modules, "ray._private.state", state)
    monkeypatch.setattr(cluster, "_LOOK_SECS", 0.0)
    with _served() as port:
        ray = _OneNode(port)
        monkeypatch.setattr(cluster, "the_library", lambda: ray)
        there = cluster.Cluster(f"127.0.0.1:{port}")
        assert [node.name for node in there.nodes()] == ["head"]
        reserved = types.SimpleNamespace(options=lambda *unused, **again: {})
        starter = agents.Agents(there, reserved, "", Moves({}, {}, there.are_gone, print))
        with (tmp_path / "log").open("ab") as log:
            learner = types.SimpleNamespace(name="learner", serves=True, replicas=1)
            role = starter.start(ProcessSpec(learner, 0, ["python"], log, {}, "head"))
        assert role.poll() is None and starter.is_ready(None)  # the head has not noticed yet
    assert ray.asked == 2
    monkeypatch.setattr(agents, "_SETTLE_SECS", 0.0)
    assert role.poll() is None and not starter.is_ready(None)
    assert starter.gone(["head"]) == set()
    with pytest.raises(ConfigurationError, match=r"the head of the Ray cluster, .*, is silent"):
        there.nodes()
    assert ray.asked == 2
    there._head.is_lost = True
    assert role.poll() == 1  # the others can be stopped at once
    assert ray.asked == 2


class _FailedAgent:
    """An actor whose process is gone."""

    def __init__(self):
        failed = concurrent.futures.Future()
        failed.set_exception(RuntimeError("the actor died"))
        call = types.SimpleNamespace(remote=lambda: types.SimpleNamespace(future=lambda: failed))
        self.wait = self.__ray_ready__ = call


def _until(condition):
    deadline_secs = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline_secs
        time.sleep(0.01)
