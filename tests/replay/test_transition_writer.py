"""From an actor's steps through a real Reverb server: items are the transitions they should be."""

import threading

import numpy as np
import pytest
import reverb
import tensorflow as tf

from tfdrl.errors import UnavailableError
from tfdrl.experience.transitions import TransitionAssembler, TransitionBlock, TransitionItem
from tfdrl.ops import priorities
from tfdrl.replay.transition_table import TABLE, replay_table
from tfdrl.replay.transition_writer import TransitionWriter
from tfdrl.topology import Address
from tfdrl.types import FIRST, LAST, MID, TimeSteps

SIGNATURE = TransitionItem(
    observation={"a": tf.TensorSpec([2, 2], tf.float32), "b": tf.TensorSpec([2], tf.int64)},
    action=tf.TensorSpec([1], tf.int32),
    step=tf.TensorSpec([1, 4], tf.float32),
)


@pytest.fixture
def server():
    """Hands items out once, in the order in which they came."""
    settings = {"max_size": 10_000, "min_size": 1, "sampler": "fifo", "max_times_sampled": 1}
    table = replay_table(SIGNATURE, **settings)
    server = reverb.Server([table], port=None)
    yield Address("localhost", server.port)
    server.stop()


def writer_to(address, num_envs, n, timeout_secs=20.0):
    return TransitionWriter(address, num_envs, n, timeout_secs, threading.Event())


def stored(address, count):
    """The first `count` items in the order of their creation."""
    client = reverb.Client(str(address))
    dataset = reverb.TrajectoryDataset(
        **{"server_address": str(address), "table": TABLE, "max_in_flight_samples_per_worker": 10},
        **{"num_workers_per_iterator": 1, "rate_limiter_timeout_ms": 5000},
        dtypes=tf.nest.map_structure(lambda s: s.dtype, SIGNATURE),
        shapes=tf.nest.map_structure(lambda s: s.shape, SIGNATURE),
    )
    assert client.server_info(timeout=5)[TABLE].current_size == count
    items = list(dataset.take(count))
    return [tf.nest.map_structure(lambda x: x.numpy(), (i.data, i.info)) for i in items]


def steps(step_type, t, rewards):
    """N environments at time t: observation a = [t, e], b = 100 e + t."""
    e = np.arange(len(rewards))
    return TimeSteps(
        np.asarray(step_type[t], np.int32),
        rewards.astype(np.float32) + t,
        np.where(np.asarray(step_type[t]) == LAST, e % 2, 1).astype(np.float32),
        {"a": np.stack([e * 0 + t, e], 1).astype(np.float32), "b": 100 * e + t},
    )


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize("n", [1, 3])
def test_items_in_the_replay(server, num_envs, n):
    """Environment e has episodes of 4 + e steps; odd ones are truncated, even ones terminate."""
    length, gamma, rewards = 62, 0.5, 100.0 * np.arange(num_envs)
    periods = 5 + np.arange(num_envs)
    phase = np.arange(length + 1)[:, None] % periods
    step_type = np.where(phase == 0, FIRST, np.where(phase == periods - 1, LAST, MID))
    assembler = TransitionAssembler(num_envs, n, gamma, block_steps=6)
    writer = writer_to(server, num_envs, n)
    for t in range(length):
        action = (10 * np.arange(num_envs) + t).astype(np.int32)
        now, then = steps(step_type, t, rewards), steps(step_type, t + 1, rewards)
        block = assembler.add(now, action, then, (), version=t)
        if block is not None:
            writer.write(block)
    writer.close()

    complete = (length - n) // 6 * 6
    expected = [(t, e) for t in range(complete) for e in range(num_envs) if step_type[t, e] != LAST]
    assert writer.items == len(expected) and writer.bad_priorities == 0
    items = stored(server, len(expected))
    for (t, e), (data, info) in zip(expected, items):
        m = min(n, periods[e] - 1 - t % periods[e])
        is_end = (t + m) % periods[e] == periods[e] - 1
        np.testing.assert_array_equal(data.observation["a"], [[t, e], [t + m, e]])
        np.testing.assert_array_equal(data.observation["b"], [100 * e + t, 100 * e + t + m])
        np.testing.assert_array_equal(data.action, [10 * e + t])
        total = sum(gamma**i * (rewards[e] + t + i + 1) for i in range(m))
        discount = gamma ** (m - 1) * (e % 2 if is_end else 1)
        np.testing.assert_allclose(data.step[0, :3], [total, discount, t], rtol=1e-6)
        assert info.priority == pytest.approx(1 + priorities.MINIMUM_PRIORITY)


def block_with(priority):
    """A block of one environment, n = 1, whose transitions have these priorities."""
    rows = len(priority)
    return TransitionBlock(
        rows=TransitionItem(
            {"a": np.zeros((rows, 1, 2), np.float32), "b": np.arange(rows)[:, None]},
            np.zeros((rows, 1), np.int32),
            np.zeros((rows, 1, 4), np.float32),
        ),
        length_steps=np.ones((rows, 1), np.int32),
        is_valid=np.arange(rows)[:, None] > 0,
        priority=np.asarray(priority, np.float32)[:, None],
    )


def test_bad_priorities_leave_the_server_alive(server):
    """Reverb itself would hang on a negative one and give NaN probabilities for an infinite one."""
    writer = writer_to(server, 1, 1)
    writer.write(block_with([0.0, -3.0, np.nan, np.inf, -np.inf, 0.0, 0.5]))
    writer.write(block_with([1.0, 2.0]))  # inserting goes on
    writer.close()
    assert writer.bad_priorities == 4
    items = stored(server, 7)
    least = priorities.MINIMUM_PRIORITY
    np.testing.assert_allclose(
        [info.priority for _, info in items],
        [3 + least, least, least, least, least, 0.5 + least, 2 + least],
        rtol=1e-5,
    )
    assert all(np.isfinite(info.probability) for _, info in items)


def test_sampling_by_bad_priorities():
    """A prioritised table still samples, and by finite probabilities."""
    table = replay_table(SIGNATURE, max_size=100, min_size=1)
    server = reverb.Server([table], port=None)
    writer = writer_to(Address("localhost", server.port), 1, 1)
    writer.write(block_with([0.0, -3.0, np.nan, np.inf, -np.inf, 0.0, 0.5]))
    writer.close()
    client = reverb.Client(f"localhost:{server.port}")
    infos = [sample.info for sample in client.sample(TABLE, 200, emit_timesteps=False)]
    assert len(infos) == 200
    assert np.isfinite([info.probability for info in infos]).all()
    server.stop()


def test_a_server_that_went_away_is_an_error_within_the_limit():
    table = replay_table(SIGNATURE, max_size=100, min_size=1)
    server = reverb.Server([table], port=None)
    writer = writer_to(Address("localhost", server.port), 1, 1, timeout_secs=3.0)
    writer.write(block_with(np.ones(5)))
    server.stop()
    with pytest.raises(UnavailableError, match="took no items for 3 s"):
        for _ in range(20):
            writer.write(block_with(np.ones(30)))


def test_waiting_ends_when_told_to_stop():
    table = replay_table(SIGNATURE, max_size=100, min_size=1)
    server = reverb.Server([table], port=None)
    stop = threading.Event()
    writer = TransitionWriter(Address("localhost", server.port), 1, 1, 60.0, stop)
    writer.write(block_with(np.ones(5)))
    server.stop()
    threading.Timer(1.0, stop.set).start()
    for _ in range(5):
        writer.write(block_with(np.ones(30)))
    assert stop.is_set()
