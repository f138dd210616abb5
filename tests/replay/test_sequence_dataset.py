"""Sequences through a real Reverb server by priority, and the ratio of learning to acting."""

import contextlib
import threading

import numpy as np
import pytest
import replay_processes
import reverb
import tree
from replay_processes import given_out
from scripted_unrolls import unrolls_of

from tfdrl.replay import transition_table, unroll_tables
from tfdrl.replay.client import ReplayInfo
from tfdrl.replay.sequence_dataset import SEQUENCES, SequenceSamples, StepCredit, sequence_dataset
from tfdrl.topology import Address


@pytest.mark.parametrize(("ratio", "batch_size"), [(0.75, 64), (2.0, 16), (1.0, 3)])
def test_ratio_of_learning_to_acting(ratio, batch_size):
    """After any number of insertions, steps * batch_size <= ratio * sequences, but for a step."""
    held = StepCredit(ratio, batch_size, min_size=20, size=0)
    inserted = steps = 0
    for _ in range(1000):
        if held.allows_a_step:
            held.step()
            steps += 1
            continue
        held.insert(7)
        inserted += 7
        if inserted < 20:
            assert not held.allows_a_step
    assert steps * batch_size == pytest.approx(ratio * (inserted - 20), abs=batch_size + 7 * ratio)


def test_a_replay_that_is_filled_already_gives_no_credit():
    held = StepCredit(1.0, 10, min_size=20, size=500)
    assert not held.allows_a_step
    held.insert(10)
    assert held.allows_a_step
    held.step()
    assert not held.allows_a_step


def _signature(unrolls):
    import tensorflow as tf

    return tree.map_structure(
        lambda leaf: tf.TensorSpec(leaf.shape[1:], tf.as_dtype(leaf.dtype)), unrolls
    )


PRIORITIES = np.array([1.0, 2.0, 4.0, 1.0])


def _unrolls():
    (unrolls,) = unrolls_of(num_envs=4, unroll_steps=3, count=1)
    return unrolls._replace(action=unrolls.action["x"], info=())


SIGNATURE = _signature(_unrolls())


@contextlib.contextmanager
def serving():
    """A server with four sequences of different priorities."""
    row = unroll_tables.with_row(SIGNATURE)
    table = transition_table.replay_table(
        row, name=SEQUENCES, max_size=100, min_size=4, priority_exponent=1.0
    )
    server = reverb.Server([table])
    client = reverb.Client(f"localhost:{server.port}")
    with client.trajectory_writer(num_keep_alive_refs=1) as writer:
        for number in range(4):
            writer.append([leaf[number] for leaf in tree.flatten(_unrolls())])
            item = [column[-1:] for column in writer.history]
            writer.create_item(SEQUENCES, PRIORITIES[number], item)
        writer.flush()
    yield Address("localhost", server.port)
    server.stop()


def serve_four_sequences():
    """In a process of its own."""
    with serving() as address:
        replay_processes.serve_until_killed(address)


def test_batches_come_by_priority_with_their_weights():
    counts = np.zeros(4)
    with serving() as address:
        dataset = sequence_dataset(address, SIGNATURE, 64, importance_exponent=0.6, prefetch=2)
        batches = [batch for _, batch in zip(range(20), dataset)]
    for batch in batches:
        experience = batch.unrolls.experience
        assert experience.observation["a"].shape == [64, 4, 2]
        rows = experience.observation["a"][:, 0, 1].numpy()
        counts += np.bincount(rows, minlength=4)
        expected = (4 * PRIORITIES / 8)[rows] ** -0.6
        np.testing.assert_allclose(batch.weights, expected / expected.max(), rtol=1e-5)
        assert len(set(batch.keys.numpy().tolist())) <= 4
    np.testing.assert_allclose(counts / counts.sum(), PRIORITIES / 8, atol=0.05)


@pytest.mark.parametrize("prefetch", [1, 2, 5])
def test_no_more_is_sampled_ahead_than_is_said(prefetch):
    """With a learner that does not train: by what the server has given out."""
    settings = {"batch_size": 32, "importance_exponent": 0.6, "timeout_secs": 10.0}
    stop = threading.Event()
    serving = replay_processes.serving_elsewhere("test_sequence_dataset:serve_four_sequences")
    with serving as address:
        samples = SequenceSamples(
            address, SIGNATURE, 1, stop, prefetch_batches=prefetch, **settings
        )
        assert samples.wait() is not None
        replay = ReplayInfo(address, 10.0, SEQUENCES)
        for taken in range(3):
            is_read = prefetch > 2 or taken  # the first time nothing is read before it is wanted
            least = 32 * (prefetch - 1) + 1
            ahead = given_out(replay, 32 * taken + least if is_read else 0) - 32 * taken
            assert ahead <= 32 * prefetch
            assert ahead >= least or not is_read
            while samples.next() is None:
                pass
        stop.set()
