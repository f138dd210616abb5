"""A learner's batches of unrolls: fresh ones, mixed with replayed ones, and what they show."""

import threading
import time
import types

import numpy as np
import pytest
import reverb
import tensorflow as tf
import tree
from tf_agents.agents.dqn import dqn_agent
from tf_agents.networks import q_network
from unroll_servers import (
    SIGNATURE,
    batches_of,
    check_experience,
    recurrent_agent,
    serving,
    table_info,
    to_numpy,
    unrolls,
    write_each,
    writers,
)

from tfdrl.architectures.impala import Impala
from tfdrl.environments import gym_environment
from tfdrl.errors import ConfigurationError
from tfdrl.experience.unroll_batches import UnrollBatch, train_arguments
from tfdrl.learning.learner_metrics import UnrollMetrics
from tfdrl.replay.client import ReplayInfo
from tfdrl.replay.reading import Samples
from tfdrl.replay.unroll_dataset import unroll_dataset
from tfdrl.replay.unroll_tables import QUEUE, REPLAY, queue_table_capacity, unrolls_in_flight
from tfdrl.runtime import agent_factory

BOTH = (QUEUE, REPLAY)


@pytest.fixture
def writer_to():
    with writers() as start:
        yield start


def wait_until(condition, timeout_secs=20.0):
    deadline = time.monotonic() + timeout_secs
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert condition()


def test_nothing_is_fetched_ahead(writer_to):
    """What waits in the learner's process is policy lag that nobody sees."""
    with serving() as address:
        writer_to(address).write(unrolls(*range(60)))
        batches = batches_of(address, 4)
        next(batches)
        time.sleep(1.0)
        # Half a batch is in flight from Reverb.
        assert table_info(address).current_size == 60 - 4 - 2
        assert next(batches).version.numpy().tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("batch_size", [1, 6, 32])
def test_a_learner_that_does_not_train_holds_one_batch_and_the_queue_another(writer_to, batch_size):
    """What the actors have finished is in two batches, and in the unroll that the actor holds."""
    capacity = queue_table_capacity(batch_size, batch_size)
    at_most = batch_size + capacity + unrolls_in_flight(batch_size) + 1
    with serving(queue_capacity=capacity) as address:
        writer = writer_to(address)
        thread = threading.Thread(target=write_each, args=(writer, range(5 * batch_size)))
        thread.start()
        info, stop = ReplayInfo(address, 5.0, QUEUE), threading.Event()
        dataset = unroll_dataset(address, SIGNATURE, batch_size)
        samples = Samples(dataset, 1, info, stop)
        for taken in range(0, 2 * batch_size, batch_size):
            # Reverb has fewer in flight if the queue had no more when it asked.
            wait_until(lambda: writer.items > taken + batch_size + capacity)  # noqa: B023
            time.sleep(0.5)
            assert writer.items - taken <= at_most
            assert samples.next(20.0).version.numpy()[0] == taken
        stop.set()
        writer_to.stop.set()
        thread.join(20)


def test_mixed_batches(writer_to):
    """The fresh part first, in the order of the queue; the rest is any that the replay holds."""
    with serving(replay_capacity=100) as address:
        writer_to(address, BOTH).write(unrolls(*range(12)))
        batches = batches_of(address, 8, replayed=4)
        found = [to_numpy(next(batches)) for _ in range(3)]
    fresh = np.concatenate([batch.version[:4] for batch in found])
    assert fresh.tolist() == list(range(12))
    replayed = np.concatenate([batch.version[4:] for batch in found])
    assert len(replayed) == 12 and set(replayed) <= set(range(12))
    # One unroll is the same wherever it comes from.
    for batch in found:
        sent = unrolls(*batch.version)
        check_experience(batch.experience, sent)
        np.testing.assert_array_equal(batch.last_reward, sent.steps.reward[:, 0])
        tree.map_structure(np.testing.assert_array_equal, batch.policy_state, sent.policy_state)


def replayed_versions(address, count):
    samples = reverb.Client(str(address)).sample(REPLAY, count, emit_timesteps=False)
    place = tree.flatten(tree.map_structure_with_path(lambda path, _: path[0], SIGNATURE))
    return np.array([int(s.data[place.index("version")][0]) for s in samples])


def test_the_replay_is_uniform_and_drops_the_oldest(writer_to):
    with serving(replay_capacity=10) as address:
        writer = writer_to(address, BOTH)
        writer.write(unrolls(*range(10)))
        first = replayed_versions(address, 3000)
        writer.write(unrolls(*range(10, 17)))
        second = replayed_versions(address, 3000)
        assert table_info(address, REPLAY).current_size == 10
        assert table_info(address).current_size == 17  # the queue lost nothing
    for found, oldest in ((first, 0), (second, 7)):
        counts = np.bincount(found - oldest, minlength=10)
        assert len(counts) == 10
        chi_square = ((counts - 300) ** 2 / 300).sum()
        assert chi_square < 9 + 5 * np.sqrt(18), counts


def test_a_full_queue_holds_back_the_mixing_actor_too(writer_to):
    with serving(queue_capacity=2, replay_capacity=10) as address:
        writer = writer_to(address, BOTH)
        thread = threading.Thread(target=write_each, args=(writer, range(4)))
        thread.start()
        wait_until(lambda: table_info(address).current_size == 2)
        time.sleep(0.5)
        assert thread.is_alive() and writer.items == 3
        batches = batches_of(address, 4, replayed=2)
        assert next(batches).version.numpy()[:2].tolist() == [0, 1]
        thread.join(20)
        assert writer.items == 4


def test_without_a_share_there_is_no_replay():
    with serving() as address:
        with pytest.raises(ConfigurationError, match=r"no table 'unrolls', only \['queue'\]"):
            ReplayInfo(address, 5.0, REPLAY).table()


@pytest.mark.parametrize(
    ("batch_size", "share", "fresh"),
    [(32, 0.0, 32), (32, 0.5, 16), (8, 0.25, 6), (3, 0.5, 1), (5, 0.5, 3), (10, 0.9, 1)],
)
def test_fresh_part_of_a_batch(batch_size, share, fresh):
    settings = {"environment": None, "agent": None, "batch_size": batch_size}
    assert Impala(**settings, replay_share=share).fresh_unrolls == fresh


def test_metrics_of_the_learner():
    """Lag and age of the fresh part, and the lag of the replayed part by itself."""
    clock = types.SimpleNamespace(take_share=lambda: 0.25)
    metrics = UnrollMetrics(
        *(lambda: 5, clock, types.SimpleNamespace(bad_steps=2), 2),
    )
    before = metrics.take()
    assert before == {
        "learner/waiting_share": 0.25,
        "learner/bad_steps": 2,
        "learner/queue": 5,
    }
    now = time.time()
    batch = UnrollBatch(
        *((), (), ()), tf.constant([9, 7, 1, 2]), tf.constant([now - 3, now - 5, 0, 0], tf.float64)
    )
    # The tenth step started from the parameters of version 9.
    metrics.add(1.5, {"entropy": np.float32(0.5)}, batch, step=10)
    found = metrics.take()
    assert found["learner/policy_lag"] == 1.0 and found["learner/replayed_policy_lag"] == 7.5
    assert found["learner/sample_age_secs"] == pytest.approx(4.0, abs=0.5)
    assert found["learner/loss"] == 1.5 and found["learner/entropy"] == 0.5


def test_an_agent_gets_what_it_asks_for():
    batch = UnrollBatch(1, 2, 3, 4, 5)
    with gym_environment(1, True, 0, id="tfdrl/Chain-v0") as environment:
        ours = recurrent_agent(environment)
        assert train_arguments(ours, batch) == {
            "experience": 1,
            "policy_state": 2,
            "last_reward": 3,
        }

        def stock(time_step_spec, action_spec, train_step_counter):
            q = q_network.QNetwork(time_step_spec.observation, action_spec)
            adam = tf.keras.optimizers.Adam()
            return dqn_agent.DqnAgent(time_step_spec, action_spec, q, adam)

        agent = agent_factory.make_agent(stock, environment)
    assert train_arguments(agent, batch) == {"experience": 1}
