"""How learners meet before TensorFlow is told of them: threads in place of processes."""

import contextlib
import json
import logging
import pathlib
import socket
import threading
import time

import pytest

from tfdrl.errors import ConfigurationError, UnavailableError
from tfdrl.learning.rendezvous import meet
from tfdrl.topology import Address, Context


@pytest.fixture
def cluster():
    """Three addresses that were free a moment ago."""
    with contextlib.ExitStack() as sockets:
        found = [sockets.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        return tuple(Address("127.0.0.1", each.getsockname()[1]) for each in found)


class Learner(threading.Thread):
    """One that meets the others, in a thread; `outcome` is what came of it."""

    def __init__(self, task, cluster, experiment="same", timeout_secs=20.0):
        super().__init__(daemon=True)
        self.context = Context(
            "learner", task, 3, pathlib.Path(), cluster=cluster, experiment=experiment
        )
        self._timeout_secs, self.outcome = timeout_secs, None
        self.start()

    def run(self):
        try:
            self.outcome = meet(self.context, self._timeout_secs)
        except (ConfigurationError, UnavailableError) as error:
            self.outcome = error

    def end(self):
        self.join(timeout=25.0)
        assert not self.is_alive()
        return self.outcome


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_all_go_when_the_last_has_come(cluster, order):
    learners = [Learner(task, cluster) for task in order[:2]]
    time.sleep(0.6)
    assert all(learner.is_alive() for learner in learners)
    learners.append(Learner(order[2], cluster))
    assert [learner.end() for learner in learners] == [True] * 3


def test_who_went_away_is_missed_and_may_come_back(cluster):
    chief, other, gone = (Learner(task, cluster) for task in range(3))
    # All three would go at once, so the third is one that greets and leaves.
    assert [learner.end() for learner in (chief, other, gone)] == [True] * 3
    chief = Learner(0, cluster)
    with _connected(cluster[0]) as connection:
        _greet(connection, cluster, 2)
        time.sleep(0.5)
    other = Learner(1, cluster)
    time.sleep(0.6)
    assert chief.is_alive() and other.is_alive()
    assert [learner.end() for learner in (Learner(2, cluster), other, chief)] == [True] * 3


def test_who_is_missing_is_said_and_named_at_the_end(cluster, caplog, monkeypatch):
    monkeypatch.setattr("tfdrl.learning.rendezvous._SAY_SECS", 0.5)
    caplog.set_level(logging.INFO)
    other, chief = Learner(1, cluster), Learner(0, cluster, timeout_secs=2.5)
    words = f"learner 0: the learners at {cluster[2]} did not come within 2.5 s"
    assert isinstance(chief.end(), UnavailableError) and str(chief.outcome) == words
    other.context.stop.set()
    said = [record.getMessage() for record in caplog.records]
    assert f"learner 0 waits for the learners at {cluster[2]} (" in "\n".join(said)


def test_stop_ends_the_waiting(cluster):
    learners = [Learner(task, cluster) for task in (0, 1)]
    time.sleep(0.5)
    for learner in learners:
        learner.context.stop.set()
    assert [learner.end() for learner in learners] == [False, False]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"experiment": "other"}, r"another experiment \(other\) than learner 0 has \(same\); all"),
        ({"cluster": "reversed"}, "another cluster .* all need the same --cluster"),
        ({"task": 1}, "another process came before it with --task=1"),
    ],
)
def test_who_does_not_belong_is_refused_and_the_others_wait_on(cluster, change, words, monkeypatch):
    monkeypatch.setattr("tfdrl.learning.rendezvous.require_free_port", lambda *unused: None)
    chief, other = Learner(0, cluster), Learner(1, cluster)
    time.sleep(1.0)  # so that the second with --task=1 is the second
    addresses = (cluster[0], cluster[2], cluster[1]) if "cluster" in change else cluster
    wrong = Learner(change.get("task", 2), addresses, change.get("experiment", "same"))
    assert isinstance(wrong.end(), ConfigurationError)
    with pytest.raises(ConfigurationError, match=words):
        raise wrong.outcome
    assert [learner.end() for learner in (Learner(2, cluster), other, chief)] == [True] * 3


@pytest.mark.parametrize(
    "noise",
    [
        b"\x16\x03\x01 not a line",
        b"GET / HTTP/1.1\r\n\r\n",
        b"[1]\n",
        b'{"task": 1}\n',
        b"[" * 50000,
    ]
    + [b'{"experiment": "same", "cluster": [], "task": "1"}\n', b"x" * 200_000],
    ids=range(7),
)
def test_strangers_do_no_harm(cluster, noise):
    chief = Learner(0, cluster)
    with _connected(cluster[0]) as connection, contextlib.suppress(OSError):
        connection.sendall(noise)
    silent = _connected(cluster[0])
    learners = [Learner(1, cluster), Learner(2, cluster), chief]
    assert [learner.end() for learner in learners] == [True] * 3
    silent.close()


def test_port_in_use(cluster):
    with socket.create_server(("127.0.0.1", cluster[1].port)):
        outcome = Learner(1, cluster).end()
    assert isinstance(outcome, ConfigurationError)
    assert f"learner 1 (--cluster) cannot listen on 0.0.0.0:{cluster[1].port}" in str(outcome)


def _connected(address):
    deadline_secs = time.monotonic() + 10.0
    while True:
        try:
            return socket.create_connection((address.host, address.port), 5.0)
        except OSError:
            assert time.monotonic() < deadline_secs
            time.sleep(0.05)


def _greet(connection, cluster, task):
    greeting = {"experiment": "same", "cluster": [str(each) for each in cluster], "task": task}
    connection.sendall(json.dumps(greeting).encode() + b"\n")
