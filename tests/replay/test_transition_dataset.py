"""Batches from a real Reverb server, priorities written back, and waits that have a limit."""

import contextlib
import threading
import time

import numpy as np
import pytest
import replay_processes
import reverb
import tensorflow as tf
from replay_processes import given_out

from tfdrl.errors import ConfigurationError, UnavailableError
from tfdrl.experience.transitions import TIME_PERIOD_SECS, TransitionItem, age_secs
from tfdrl.replay.client import ReplayInfo
from tfdrl.replay.reading import Samples, in_flight_samples, ready_of
from tfdrl.replay.transition_dataset import (
    PriorityWriter,
    SampledBatch,
    require_priorities,
    sample_dataset,
)
from tfdrl.replay.transition_table import TABLE, replay_table
from tfdrl.topology import Address

SIGNATURE = TransitionItem(
    observation=tf.TensorSpec([2, 3], tf.float32),
    action=tf.TensorSpec([1], tf.int32),
    step=tf.TensorSpec([1, 4], tf.float32),
)
PRIORITY = np.array([0.5, 1.0, 2.0, 4.0, 8.0])


def item(number, written_secs=0.0):
    """Its observations are [number, ...] and [number + 0.5, ...]."""
    return TransitionItem(
        np.stack([np.full(3, number), np.full(3, number + 0.5)]).astype(np.float32),
        np.array([number], np.int32),
        np.array([[10 * number, 0.9, 100 + number, written_secs]], np.float32),
    )


@contextlib.contextmanager
def serving(**kwargs):
    settings = {**{"max_size": 100, "min_size": 5}, **kwargs}
    server = reverb.Server([replay_table(SIGNATURE, **settings)], port=None)
    yield Address("localhost", server.port)
    server.stop()


def insert(address, priorities):
    """Items 0, 1, ... of these priorities."""
    with reverb.Client(str(address)).trajectory_writer(num_keep_alive_refs=2) as writer:
        for number, priority in enumerate(priorities):
            one = item(number, time.time() % TIME_PERIOD_SECS)
            # Two rows, the second of which has the step: an item needs both observations.
            writer.append(one._replace(observation=one.observation[0], action=None, step=None))
            row = one._replace(
                observation=one.observation[1], action=one.action[0], step=one.step[0]
            )
            writer.append(row)
            history = writer.history
            trajectory = TransitionItem(
                history.observation[-2:], history.action[-1:], history.step[-1:]
            )
            writer.create_item(TABLE, float(priority), trajectory)
        writer.end_episode(timeout_ms=5000)


@pytest.fixture
def served():
    """A server with five items of different priorities."""
    with serving() as address:
        insert(address, PRIORITY)
        yield address


def dataset_of(address, batch_size=64, updates=3):
    return sample_dataset(
        *(address, SIGNATURE, batch_size, updates), importance_exponent=0.4, prefetch=1
    )


def test_a_batch(served):
    batch = next(iter(dataset_of(served)))
    assert batch.weights.shape == batch.keys.shape == batch.version.shape == [3, 64]
    experience = batch.experience
    assert experience.observation.shape == [3, 64, 2, 3]
    number = experience.action[..., 0].numpy()
    np.testing.assert_array_equal(experience.action[..., 1], number)
    np.testing.assert_array_equal(experience.observation[..., 0, 0], number)
    np.testing.assert_array_equal(experience.observation[..., 1, 0], number + 0.5)
    np.testing.assert_array_equal(experience.reward[..., 0], 10 * number)
    np.testing.assert_allclose(experience.discount, 0.9)
    np.testing.assert_array_equal(batch.version, 100 + number)
    assert 0 <= age_secs(batch.time_secs.numpy()).max() < 60
    assert not experience.is_last().numpy().any()
    # One key names one item, in all batches.
    assert len({(k, n) for k, n in zip(batch.keys.numpy().flat, number.flat)}) <= 5


def test_weights_are_normalised_in_each_batch(served):
    batch = next(iter(dataset_of(served)))
    number = batch.experience.action[..., 0].numpy()
    probability = PRIORITY**0.6 / (PRIORITY**0.6).sum()
    raw = (5 * probability[number]) ** -0.4
    np.testing.assert_allclose(batch.weights, raw / raw.max(axis=1, keepdims=True), rtol=1e-5)
    assert set(number.flat) == set(range(5))


@pytest.mark.parametrize(
    ("then", "now", "age"),
    [
        (10.0, 15.0, 5.0),
        (TIME_PERIOD_SECS - 3, 4.0, 7.0),
        (10.0, 9.5, 0.0),
        (1.0, 40_000.0, 39_999.0),
    ],
)
def test_age(then, now, age):
    """Times wrap about every 18 hours, and clocks of two hosts differ a little."""
    np.testing.assert_allclose(age_secs(np.float32([then]), now), [age], atol=0.01)


def priorities_of(client):
    """item -> (key, priority), as far as they are seen in 500 samples."""
    samples = client.sample(TABLE, 500, emit_timesteps=False)
    return {int(s.data[1][0]): (s.info.key, s.info.priority) for s in samples}


def test_new_priorities_reach_the_table(served):
    client = reverb.Client(str(served))
    keys = {number: key for number, (key, _) in priorities_of(client).items()}
    assert set(keys) == set(range(5))
    writer = PriorityWriter(served)
    # Item 0 comes twice and keeps its last error; the last key is of no item.
    named = np.array([[keys[0], keys[1], keys[2]], [keys[0], keys[3], 999]], np.uint64)
    writer.update(named, np.array([[-3.0, 2.0, np.nan], [-7.0, 0.0, np.inf]], np.float32))
    writer.update(named, None)  # an agent without TD errors
    writer.update(np.array([[keys[4]]], np.uint64), np.array([[5.0]]))

    deadline = time.monotonic() + 10
    while priorities_of(client).get(4, (0, 8.0))[1] == 8.0 and time.monotonic() < deadline:
        pass  # the broken estimate is sampled nearly always, and item 4 only sometimes
    assert writer.bad == 2 and writer.dropped == 0
    writer.update(np.array([[keys[2]]], np.uint64), np.array([[4.0]]))
    while priorities_of(client)[2][1] > 10 and time.monotonic() < deadline:
        pass
    found = {number: priority for number, (_, priority) in priorities_of(client).items()}
    assert set(found) >= {0, 1, 2, 4}
    wanted = {0: 7.0, 1: 2.0, 2: 4.0, 3: 1e-6, 4: 5.0}
    for number, priority in found.items():
        assert priority == pytest.approx(wanted[number], abs=1e-5)


def test_the_newest_updates_are_kept_if_the_server_is_away():
    with serving() as address:
        pass
    writer = PriorityWriter(address, max_pending=2)
    start_secs = time.monotonic()
    for _ in range(10):
        writer.update(np.ones((1, 4), np.uint64), np.ones((1, 4)))
    assert time.monotonic() - start_secs < 1.0
    assert 7 <= writer.dropped <= 8


def test_no_wait_is_without_limit():
    """Too few items: None in time, though the thread that reads hangs."""
    with serving() as address:
        stop = threading.Event()
        replay = ReplayInfo(address, timeout_secs=2.0)
        samples = Samples(dataset_of(address, 2, 1), 1, replay, stop)
        start_secs = time.monotonic()
        assert samples.next(timeout_secs=0.3) is None
        assert time.monotonic() - start_secs < 2
        assert samples.waiting.take_share() > 0.2
        assert "holds 0 items" in replay.check()
        insert(address, PRIORITY)
        assert samples.next(timeout_secs=20.0).weights.shape == [1, 2]
        stop.set()


def test_a_server_that_is_gone_is_told_apart_from_an_empty_one():
    with serving(max_size=9) as address:
        replay = ReplayInfo(address, timeout_secs=1.0)
        assert replay.wait(SIGNATURE, "the learner", threading.Event()).max_size == 9
        other = SIGNATURE._replace(action=tf.TensorSpec([1], tf.float32))
        with pytest.raises(ConfigurationError, match="same gin file"):
            replay.wait(other, "the learner", threading.Event())
    with pytest.raises(UnavailableError, match=str(address)):
        replay.wait(SIGNATURE, "the learner", threading.Event())


def test_a_table_by_another_name():
    with serving(name="other") as address:
        replay = ReplayInfo(address, 5.0)
        with pytest.raises(ConfigurationError, match="only \\['other'\\]"):
            replay.table()


class _TrainerOf:
    """Of an agent that gives TD errors, or does not."""

    def __init__(self, has_td_error):
        self._has_td_error = has_td_error

    def gives_td_error(self, experience, weights):
        return self._has_td_error


def test_priorities_need_td_errors(served):
    info = ReplayInfo(served, 5.0).table()
    batch = SampledBatch(*SampledBatch._fields)
    require_priorities(info, _TrainerOf(True), batch, object())
    with pytest.raises(ConfigurationError, match="td_error"):
        require_priorities(info, _TrainerOf(False), batch, object())
    with serving(sampler="uniform") as address:
        info = ReplayInfo(address, 5.0).table()
        require_priorities(info, _TrainerOf(False), batch, object())


def serve_five_items():
    """In a process of its own."""
    with serving() as address:
        insert(address, PRIORITY)
        replay_processes.serve_until_killed(address)


@pytest.fixture(scope="module")
def served_elsewhere():
    with replay_processes.serving_elsewhere("test_transition_dataset:serve_five_items") as address:
        yield address


# Each: prefetch, batch size, updates of a call, workers.
AHEAD = [(1, 64, 3, 1), (2, 64, 3, 2), (4, 128, 8, 2), (16, 32, 1, 1), (3, 10, 1, 3), (4, 64, 1, 4)]


@pytest.mark.parametrize(("prefetch", "batch_size", "updates", "workers"), AHEAD)
def test_no_more_is_sampled_ahead_than_is_said(
    served_elsewhere, prefetch, batch_size, updates, workers
):
    """With a learner that does not train: by what the server has given out."""
    stop, replay = threading.Event(), ReplayInfo(served_elsewhere, timeout_secs=5.0)
    before = given_out(replay)
    dataset = sample_dataset(
        *(served_elsewhere, SIGNATURE, batch_size, updates, 0.4, prefetch, workers)
    )
    ready = ready_of(prefetch)
    samples = Samples(dataset, ready, replay, stop)
    call = batch_size * updates
    for taken in range(3):
        least = (prefetch - 1) * call + 1
        is_read = ready or taken  # the first time nothing is read before it is wanted
        start = before + taken * call
        ahead = given_out(replay, start + least if is_read else 0) - start
        assert ahead <= prefetch * call
        assert ahead >= least or not is_read
        assert samples.next(timeout_secs=20.0).weights.shape == [updates, batch_size]
    stop.set()


def test_an_item_of_each_worker_is_the_least_ahead():
    assert in_flight_samples(1024, 2) == 512
    assert in_flight_samples(32, 3) == 10
    assert in_flight_samples(2, 4) == 1


def test_samples_that_nobody_wants_yet_are_wanted_once():
    """Read on demand: a wait in vain asks for one batch, however often it is repeated."""
    read, go_on, stop = [], threading.Event(), threading.Event()

    class Dataset:
        def __iter__(self):
            return self

        def __next__(self):
            go_on.wait(10)
            read.append(len(read))
            return read[-1]

    samples = Samples(Dataset(), 0, _Quiet(), stop)
    assert [samples.next(timeout_secs=0.05) for _ in range(3)] == [None] * 3
    go_on.set()
    assert samples.next(timeout_secs=5.0) == 0
    time.sleep(0.1)
    assert read == [0] and samples.ready() is None
    assert samples.next(timeout_secs=5.0) == 1
    stop.set()


def test_a_read_that_fails_is_tried_again(caplog):
    attempts, stop = [], threading.Event()

    class Dataset:
        def __iter__(self):
            attempts.append(1)
            if len(attempts) == 1:
                raise RuntimeError("the server is away")
            return iter(range(10))

    samples = Samples(Dataset(), 1, _Quiet(), stop)
    assert [samples.next(timeout_secs=5.0) for _ in range(3)] == [0, 1, 2]
    assert "sampling was interrupted, trying again: the server is away" in caplog.text
    stop.set()


class _Quiet:
    """A replay that has nothing to say."""

    def check(self):
        return ""
