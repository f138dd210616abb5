"""Actors and learners that wait for the replay ratio, over a real training service."""

import logging
import pathlib
import threading
import time
from types import SimpleNamespace

import pytest

from tfdrl.acting.run_connection import RunConnection
from tfdrl.errors import UnavailableError
from tfdrl.learning import ratio_limiters
from tfdrl.learning.ratio_limiters import ActorLimiter, LearnerLimiter
from tfdrl.replay.replay_ratio import ReplayRatio
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.topology import Address, Context
from tfdrl.types import ItemCounts

#: The learner trains from 50 items on; actors may have 150 in the replay before it does.
RATIO = ReplayRatio(ratio=2.0, samples_per_call=10, min_size=100, tolerance_items=50)


@pytest.fixture
def service():
    server = TrainingServer(Address("127.0.0.1", 0), "digest")
    yield server
    server.close()


class Replay:
    """A server's table, of a size that a test sets; None: it does not answer."""

    def __init__(self, size=1000):
        self.size, self.asked = size, 0

    def table(self):
        self.asked += 1
        if self.size is None:
            return None
        return SimpleNamespace(
            current_size=self.size, rate_limiter_info=SimpleNamespace(min_size_to_sample=100)
        )


@pytest.fixture
def start_actor(service):
    """`start_actor(task, replicas) -> (limiter, context, connection)`, which reports."""
    connections = []

    def start(task=0, replicas=1, replay=None, timeout_secs=20.0, ratio=RATIO):
        context = Context("actor", task, replicas, pathlib.Path("."), experiment="digest")
        connection = RunConnection(service.address, context, "", timeout_secs)
        connection.start()
        connections.append((connection, context))
        return ActorLimiter(ratio, connection, replay or Replay(), context), context, connection

    yield start
    for connection, context in connections:
        context.stop.set()
        connection.close()


def in_thread(limiter, items, tick=lambda: None):
    """Waits in a thread; `is_alive` tells whether it still does."""
    thread = threading.Thread(target=limiter.wait, args=(items, tick), daemon=True)
    thread.start()
    return thread


def until(condition, timeout_secs=30.0):
    deadline = time.monotonic() + timeout_secs
    while not condition():
        assert time.monotonic() < deadline, "in vain"
        time.sleep(0.01)


def test_an_actor_waits_for_the_learner(service, start_actor):
    limiter, _, _ = start_actor()
    ticks = []
    limiter.wait(150, lambda: ticks.append(1))
    assert not ticks
    waiting = in_thread(limiter, 151, lambda: ticks.append(1))
    until(lambda: service.items().inserted == 151)  # reported while waiting, within a second
    waiting.join(0.5)
    assert waiting.is_alive() and ticks
    service.count_sampled(1)
    waiting.join(0.3)
    assert waiting.is_alive()
    service.count_sampled(1)  # 2 * 151 - 2 = 300
    waiting.join(30)
    assert not waiting.is_alive()
    assert limiter.counters()["actor/ratio_waiting_share"] > 0.3


def test_what_others_have_inserted_counts(service, start_actor):
    (first, *_), (second, _, connection) = start_actor(0, 2), start_actor(1, 2)
    waiting = in_thread(first, 120)
    until(lambda: service.items().inserted == 120)
    waiting.join(30)  # 2 * 120 were taken for 240, until it had stood still for two reports
    assert not waiting.is_alive()
    until(lambda: connection.items.totals.inserted == 120)  # the second has been told
    waiting = in_thread(second, 60)
    until(lambda: service.items().inserted == 180)
    waiting.join(0.5)
    assert waiting.is_alive()
    service.count_sampled(60)
    waiting.join(30)
    assert not waiting.is_alive()


def test_stop_ends_the_wait(start_actor):
    limiter, context, _ = start_actor()
    waiting = in_thread(limiter, 1000)
    waiting.join(0.3)
    assert waiting.is_alive()
    context.stop.set()
    waiting.join(1.0)
    assert not waiting.is_alive()


def test_a_learner_that_ends_the_run_ends_the_wait(service, start_actor):
    limiter, _, _ = start_actor()
    waiting = in_thread(limiter, 1000)
    service.finish("solved")
    waiting.join(30)
    assert not waiting.is_alive()


def test_a_learner_that_is_gone_is_noticed(service, start_actor):
    limiter, _, connection = start_actor(timeout_secs=0.5)
    service.close()
    with pytest.raises(UnavailableError):
        limiter.wait(1000, connection.check)


def test_a_replay_that_came_back_empty_is_filled(start_actor):
    replay = Replay(size=40)
    limiter, _, _ = start_actor(replay=replay, replicas=1)
    started = time.monotonic()
    limiter.wait(1000, lambda: None)  # 60 are missing
    assert time.monotonic() - started < 3
    asked = replay.asked
    for items in range(1010, 1060, 10):
        limiter.wait(items, lambda: None)
    assert replay.asked == asked
    replay.size = 100
    waiting = in_thread(limiter, 1060)
    waiting.join(1.5)
    assert waiting.is_alive() and replay.asked > asked


def test_a_replay_that_is_away_fills_nothing(start_actor):
    replay = Replay(size=None)
    limiter, _, _ = start_actor(replay=replay)
    waiting = in_thread(limiter, 1000)
    until(lambda: replay.asked)
    waiting.join(0.2)
    assert waiting.is_alive()


def test_without_a_ratio_nobody_waits(service, start_actor):
    limiter, _, _ = start_actor(ratio=None)
    limiter.wait(10_000, lambda: None)
    assert limiter.counters() == {}
    until(lambda: service.items().inserted == 10_000)  # counted all the same


def test_it_is_said_what_an_actor_waits_for(start_actor, monkeypatch, caplog):
    monkeypatch.setattr(ratio_limiters, "_WARNING_SECS", 0.2)
    caplog.set_level(logging.WARNING)
    waiting = in_thread(start_actor()[0], 1000)
    until(lambda: "900 items ahead of the replay ratio 2, 50 are allowed" in caplog.text)
    assert waiting.is_alive()


@pytest.mark.parametrize(("replicas", "secs"), [(1, 0.1), (10, 0.1), (50, 0.5), (400, 1.0)])
def test_many_that_wait_do_not_flood_the_learner(replicas, secs):
    assert ratio_limiters.report_period_secs(replicas) == pytest.approx(secs)


class Counts:
    """Of the run, as a test sets them."""

    def __init__(self):
        self.counts = ItemCounts(0, 0)

    def __call__(self):
        return self.counts


def test_a_learner_waits_for_actors(monkeypatch, caplog):
    monkeypatch.setattr(ratio_limiters, "_WARNING_SECS", 0.15)
    caplog.set_level(logging.WARNING)
    counts, asked = Counts(), []
    limiter = LearnerLimiter(RATIO, counts, 100, threading.Event(), lambda: asked.append(1))
    counts.counts = ItemCounts(54, 0)
    assert not any(limiter.allows_training() for _ in range(3))
    assert "51 items behind the replay ratio 2, 50 are allowed" in caplog.text and asked
    counts.counts = ItemCounts(55, 0)
    assert limiter.allows_training()
    counts.counts = ItemCounts(55, 10)
    assert not limiter.allows_training()
    metrics = limiter.metrics()
    assert metrics.pop("learner/ratio_waiting_share") > 0.5
    assert metrics == {"learner/replay_ratio_set": 2.0}
    counts.counts = ItemCounts(1100, 1900)
    assert limiter.metrics()["learner/replay_ratio"] == 1.9


def test_a_learner_goes_on_within_a_tenth_of_a_second(caplog):
    counts = Counts()
    limiter = LearnerLimiter(RATIO, counts, 100, threading.Event())
    threading.Timer(0.05, setattr, (counts, "counts", ItemCounts(500, 0))).start()
    assert limiter.allows_training()


def test_a_learner_that_is_told_to_stop_does_not_wait():
    stop = threading.Event()
    stop.set()
    started = time.monotonic()
    assert not LearnerLimiter(RATIO, Counts(), 100, stop).allows_training()
    assert time.monotonic() - started < 0.09


def test_without_a_ratio_the_learner_only_measures():
    counts = Counts()
    limiter = LearnerLimiter(None, counts, 100, threading.Event())
    assert limiter.allows_training() and limiter.metrics() == {}
    counts.counts = ItemCounts(300, 1000)
    assert limiter.metrics() == {"learner/replay_ratio": 5.0}


def _table(size):
    limits = SimpleNamespace(
        min_size_to_sample=100, samples_per_insert=1.0, min_diff=-1.8e308, max_diff=1.8e308
    )
    return SimpleNamespace(
        name="t", current_size=size, max_size=5000, max_times_sampled=0, rate_limiter_info=limits
    )


# Each: ratio of the checkpoint (None: none was set; "old": of a version without counts), items in
# the table, counts expected afterwards, when 700 were inserted and 1200 sampled before.
RESUMED = {
    "the same ratio": (2.0, 4000, ItemCounts(700, 1200)),
    "another ratio": (8.0, 4000, ItemCounts(100, 0)),
    "no ratio before": (None, 4000, ItemCounts(100, 0)),
    "an old version": ("old", 4000, ItemCounts(100, 0)),
    "a replay that was lost": ("old", 30, ItemCounts(30, 0)),
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_directory_of_before(name):
    """D begins at its centre, from which both may go on, or where there is too little, below."""
    before, size, expected = RESUMED[name]
    server = TrainingServer(Address("127.0.0.1", 0), "digest")
    state = server.state()
    state["runs"] = [["actor", 0, 1, 700, 3, 700, 0]]
    state["items"] = {"ratio": before, "begin": [0, 0], "own_sampled": 1200}
    if before == "old":
        state = {"runs": [["actor", 0, 1, 700, 3]]}
    server.close()
    service = TrainingServer(Address("127.0.0.1", 0), "digest", state=state)
    config = SimpleNamespace(replay_ratio=2.0, replay_ratio_tolerance_items=50)
    session = SimpleNamespace(service=service, restored=True)
    limiter = ratio_limiters.of_session(
        config, "apex", 10, _table(size), session, threading.Event()
    )
    assert service.items() == expected
    assert RATIO.allows_inserting(expected)
    if size >= 100 and expected.inserted == 100:
        assert limiter.allows_training()
    service.close()


def test_a_fresh_run_counts_from_its_first_item(service):
    """Those that came before the learner knew its table are not forgiven."""
    config = SimpleNamespace(replay_ratio=2.0, replay_ratio_tolerance_items=None)
    session = SimpleNamespace(service=service, restored=False)
    connection = RunConnection(
        service.address, Context("actor", 0, 1, ".", experiment="digest"), "", 5.0
    )
    connection.count_items(ItemCounts(300, 0))
    connection.close()  # reports
    ratio_limiters.of_session(config, "apex", 10, _table(300), session, threading.Event())
    assert service.items() == ItemCounts(300, 0)


def test_two_learners_take_turns_by_what_they_are_told(service):
    """Each takes the other to have trained as much as itself, until it was told otherwise."""
    table = _table(1000)
    config = SimpleNamespace(replay_ratio=2.0, replay_ratio_tolerance_items=50, batch_size=10)
    actor = RunConnection(
        service.address, Context("actor", 0, 1, ".", experiment="digest"), "", 5.0
    )
    actor.count_items(ItemCounts(100, 0))
    actor.close()  # reports
    learners = []
    for task in range(2):
        context = Context("learner", task, 2, pathlib.Path("."), experiment="digest")
        connection = RunConnection(service.address, context, "", 20.0)
        connection.start()
        limiter = ratio_limiters.of_connection(config, "gorila", [table], connection, context)
        learners.append((limiter, connection, context))
    deadline = time.monotonic() + 20
    while service.items().sampled < 100:  # 2 * 100 - 10 * steps >= 2 * (100 - 50)
        assert time.monotonic() < deadline, service.items()
        for limiter, *_ in learners:
            if limiter.allows_training():
                limiter.counts.add(10)
    for _ in range(10):
        assert not any(limiter.allows_training() for limiter, *_ in learners)
    assert service.items() == ItemCounts(100, 100)
    for _, connection, context in learners:
        context.stop.set()
        connection.close()
