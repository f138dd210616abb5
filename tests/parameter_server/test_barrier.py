"""Synchronous updates: the mean of one gradient of each worker, and nobody goes ahead."""

import threading
import time

import numpy as np
import pytest
from test_parameter_shards import Servers, check, grown, send_raw, sgd

from tfdrl.errors import ConfigurationError, UnavailableError
from tfdrl.parameter_server.protocol import ACCEPTED, DUPLICATE, NON_FINITE, STALE, Header
from tfdrl.parameter_server.settings import ParameterServerSettings


class Together:
    """Workers that each run a function in a thread of their own."""

    def __init__(self, workers):
        self._workers = workers

    def start(self, run):
        self._outcomes = [None] * len(self._workers)
        self._threads = [
            threading.Thread(target=self._run, args=(run, k), daemon=True)
            for k in range(len(self._workers))
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, run, k):
        try:
            self._outcomes[k] = run(k, self._workers[k])
        except UnavailableError as error:
            self._outcomes[k] = error

    def end(self):
        for thread in self._threads:
            thread.join(30.0)
            assert not thread.is_alive()
        return self._outcomes

    def __call__(self, run):
        self.start(run)
        return self.end()


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Two shards, two workers."""
    return Servers(tmp_path_factory.mktemp("sgd"), sgd(snapshots=9), shards=2, barrier=2)


@pytest.fixture(scope="module")
def pair(servers):
    return [servers.worker(task) for task in range(2)]


@pytest.fixture
def two(pair):
    for worker in pair:
        worker.refresh()
    return pair


def value_of(worker):
    return float(worker.values()[0][0, 0])


def start_when_sent(servers, together, run):
    """Starts a worker and returns when the last shard has its gradient."""
    start = servers.statuses()[1]["verdicts"]["accepted"]
    deadline_secs = time.monotonic() + 20.0
    together.start(run)
    while servers.statuses()[1]["verdicts"]["accepted"] == start:
        assert time.monotonic() < deadline_secs
        time.sleep(0.01)


def test_sgd_by_the_mean(servers, two):
    start, value = servers.statuses(), value_of(two[0])
    # (-1 + 4) / 2 and so on; all are exact in float32.
    rounds = [(-1.0, 4.0), (0.5, 0.25), (3.0, 3.0), (8.0, -8.0)]

    def run(k, worker):
        seen = []
        for gradients in rounds:
            assert worker.send(gradients[k]) == [ACCEPTED]
            seen.append((worker.version, value_of(worker)))
        return seen

    expected, version = [], start[0]["version"]
    for one, other in rounds:
        value, version = value - (one + other) / 2, version + 1
        expected.append((version, value))
    assert Together(two)(run) == [expected, expected]
    check(two[0], value)
    for before, after in zip(start, servers.statuses()):
        counts, verdicts = grown(before, after)
        # Steps are those of both; every gradient has age 0.
        assert (counts["version"], counts["steps"]) == (4, 4 * 2 * 10)
        assert verdicts == {"accepted": 4 * 2}
        assert np.subtract(after["ages"], before["ages"])[0] == 4 * 2


def test_rmsprop_of_three_by_the_mean(tmp_path):
    """One step by the mean gradient, not three by each: n is of the mean's square."""
    settings = ParameterServerSettings(rule="rmsprop", learning_rate=0.5, decay=0.75, epsilon=0.1)
    servers = Servers(tmp_path, settings, value=1.0, barrier=3)
    workers = [servers.worker(task) for task in range(3)]
    rounds = [(1.0, 2.0, 6.0), (-1.0, 0.5, -4.0), (0.0, 0.3, 0.3)]
    outcomes = Together(workers)(lambda k, w: [w.send(gradients[k]) for gradients in rounds])
    assert outcomes == [[[ACCEPTED]] * 3] * 3
    value, mean_square = 1.0, 0.0
    for gradients in rounds:
        mean = sum(gradients) / 3
        mean_square = 0.75 * mean_square + 0.25 * mean**2
        value -= 0.5 * mean / np.sqrt(mean_square + 0.1)
    for worker in workers:
        assert worker.version == 3
        for found in worker.values():
            np.testing.assert_allclose(found, np.full(found.shape, value), rtol=1e-6)


def test_nobody_goes_ahead(servers, two):
    together, start = Together(two), two[0].version
    together.start(lambda k, worker: (time.sleep(0.4 * k), worker.send(), time.monotonic())[1:])
    time.sleep(0.2)
    assert [status["version"] for status in servers.statuses()] == [start, start]
    (first, first_secs), (second, second_secs) = together.end()
    assert first == second == [ACCEPTED] and abs(first_secs - second_secs) < 0.2
    assert two[0].version == two[1].version == start + 1


def test_a_second_gradient_of_a_worker_does_not_count(servers, two):
    """Its process was started again while the others waited."""
    value, again = value_of(two[0]), servers.worker(0)
    together = Together([two[0]])
    start_when_sent(servers, together, lambda k, worker: worker.send(2.0))
    start = servers.statuses()
    assert again.send(1000.0) == [DUPLICATE] and again.rejected == 1
    assert grown(start[0], servers.statuses()[0])[1] == {"duplicate": 1}
    assert two[1].send(4.0) == [ACCEPTED] and together.end() == [[ACCEPTED]]
    check(two[1], value - (2.0 + 4.0) / 2)
    again.close()


def test_gradients_of_other_parameters_do_not_count(servers, two):
    start, value = servers.statuses()[0], value_of(two[0])
    header = Header(start["epoch"], start["version"] - 1, worker=0)
    assert send_raw(servers.shards[0], header, value=100.0).verdict == STALE
    newest = header._replace(version=start["version"])
    assert send_raw(servers.shards[0], newest, value=float("nan")).verdict == NON_FINITE
    assert Together(two)(lambda k, worker: worker.send(1.0)) == [[ACCEPTED]] * 2
    check(two[0], value - 1.0)


def test_who_waits_too_long_says_for_what(servers, two):
    worker = servers.worker(0, timeout_secs=0.3)
    message = (
        r"worker 0 waited 0\.3 s at the barrier for the other 1 workers after version "
        f"{worker.version}"
    )
    value, start_secs = value_of(worker), time.monotonic()
    with pytest.raises(UnavailableError, match=message):
        worker.send(2.0)
    assert time.monotonic() - start_secs < 5.0
    # What it sent counts; its next process finds that and goes on with the others.
    assert two[1].send(4.0) == [ACCEPTED]
    worker.pull()
    check(worker, value - (2.0 + 4.0) / 2)
    worker.close()


def test_stop_ends_the_waiting(servers, two):
    worker = servers.worker(0)
    together, value = Together([worker]), value_of(two[0])
    together.start(lambda k, worker: worker.send())
    time.sleep(0.1)
    worker.context.stop.set()
    assert together.end() == [[ACCEPTED]]
    assert two[1].send() == [ACCEPTED]
    check(two[1], value - 1.0)
    worker.close()


def test_a_rollback_frees_who_waits_and_what_was_sent_is_forgotten(servers, two):
    value = value_of(two[0])
    for shard in servers.shards:
        shard.snapshot()
    assert Together(two)(lambda k, worker: worker.send(1.0)) == [[ACCEPTED]] * 2
    check(two[0], value - 1.0)
    together, version, epoch = Together(two[:1]), two[0].version, two[0].epoch
    start_when_sent(servers, together, lambda k, worker: worker.send(100.0))
    for shard in servers.shards:
        assert shard.rollback(version).version == version - 1
    assert together.end() == [[ACCEPTED]]
    assert (two[0].epoch, two[0].version) == (epoch + 1, version + 1)
    check(two[0], value)
    two[1].pull()
    assert Together(two)(lambda k, worker: worker.send(0.5)) == [[ACCEPTED]] * 2
    check(two[0], value - 0.5)


def test_a_worker_that_died_between_two_shards_stops_nobody(tmp_path):
    """The second shard lacks its gradient of a round that the first counts as sent."""
    servers = Servers(tmp_path, sgd(), shards=2, barrier=2)
    assert send_raw(servers.shards[0], Header(0, 0, worker=0)).verdict == ACCEPTED
    workers = [servers.worker(task) for task in range(2)]

    def run(k, worker):
        while not worker.context.stop.is_set():
            worker.send()

    together = Together(workers)
    together.start(run)
    deadline_secs = time.monotonic() + 20.0
    while min(status["version"] for status in servers.statuses()) < 5:
        assert time.monotonic() < deadline_secs, servers.statuses()
        time.sleep(0.05)
    for worker in workers:
        worker.context.stop.set()
    assert together.end() == [None, None]


def test_an_age_limit_is_refused(tmp_path):
    with pytest.raises(ConfigurationError, match="max_gradient_age = 3 with synchronous updates"):
        Servers(tmp_path, sgd(max_gradient_age=3), barrier=2)
