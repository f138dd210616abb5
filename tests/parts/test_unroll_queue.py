"""The learner's own queue of unrolls: in order, bounded, and nobody waits for ever."""

import threading
import time

import numpy as np
import pytest
import tree
from test_unroll_assembler import acted_at, state_at, step_at, unrolls_of

from tfdrl.parts.unroll_queue import ClosedError, UnrollCollector, UnrollQueue


def collected(num_envs, unroll_steps, count):
    """The unrolls of `unrolls_of`, as a collector makes them."""
    collector, found = UnrollCollector(unroll_steps), []
    for t in range(count * unroll_steps):
        if collector.is_at_start:
            collector.begin(step_at(t, num_envs), state_at(t, num_envs), version=len(found))
        complete = collector.add(*acted_at(t, num_envs), step_at(t + 1, num_envs))
        assert (complete is None) == bool((t + 1) % unroll_steps)
        if complete is not None:
            found.append(complete)
    return found


def test_batches_are_those_of_an_actor_that_assembles_itself():
    queue = UnrollQueue(100)
    for block in collected(num_envs=3, unroll_steps=4, count=5):
        queue.put(block)
    blocks = unrolls_of(num_envs=3, unroll_steps=4, count=5)
    everything = tree.map_structure(lambda *leaves: np.concatenate(leaves), *blocks)
    for start in range(0, 14, 2):
        batch = queue.take(2, 1.0)
        expected = tree.map_structure(lambda leaf: leaf[start : start + 2], everything)  # noqa: B023
        for left, right in zip(tree.flatten(batch[:-1]), tree.flatten(expected[:-1])):
            assert left.dtype == right.dtype
            np.testing.assert_array_equal(left, right)


def test_a_batch_lives_until_the_next_but_one():
    queue = UnrollQueue(100)
    for block in collected(num_envs=1, unroll_steps=4, count=4):
        queue.put(block)
    first, second = queue.take(1, 1.0), queue.take(1, 1.0)
    kept = first.steps.reward.copy()
    np.testing.assert_array_equal(first.steps.reward, kept)
    assert queue.take(1, 1.0).steps.reward is first.steps.reward is not second.steps.reward


def _versions(unrolls):
    return unrolls.version.tolist()


def test_batches_are_the_oldest_unrolls_whatever_blocks_they_came_in():
    queue = UnrollQueue(8)
    for unrolls in collected(num_envs=3, unroll_steps=2, count=3):
        queue.put(unrolls)
    assert len(queue) == 9
    first, second = queue.take(5, 1.0), queue.take(4, 1.0)
    assert _versions(first) == [0, 0, 0, 1, 1] and _versions(second) == [1, 2, 2, 2]
    # Environment 2 of the second block, whose numbers name their place in the stream.
    assert second.steps.observation["a"][0].tolist() == [[2, 2], [3, 2], [4, 2]]
    assert len(queue) == 0 and queue.take(1, 0.01) is None


def test_full_queue_makes_writers_wait():
    queue = UnrollQueue(4)
    blocks = collected(num_envs=3, unroll_steps=2, count=3)
    done = threading.Event()

    def write():
        for block in blocks:
            queue.put(block)
        done.set()

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    assert not done.wait(0.2) and len(queue) == 6  # one block over, never two
    assert _versions(queue.take(4, 1.0)) == [0, 0, 0, 1]
    assert done.wait(2.0)


def test_too_few_unrolls_come_as_none_after_the_time():
    queue = UnrollQueue(4)
    queue.put(collected(num_envs=3, unroll_steps=2, count=1)[0])
    start_secs = time.monotonic()
    assert queue.take(4, 0.2) is None
    assert 0.19 < time.monotonic() - start_secs < 1.0
    assert np.array_equal(queue.take(3, 0.2).version, [0, 0, 0])


def test_closing_frees_who_waits():
    queue = UnrollQueue(1)
    block = collected(num_envs=1, unroll_steps=2, count=1)[0]
    queue.put(block)
    errors = []

    def write():
        try:
            queue.put(block)
        except ClosedError as error:
            errors.append(error)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    time.sleep(0.1)
    queue.close()
    thread.join(2.0)
    assert errors
    with pytest.raises(ClosedError):
        queue.put(block)
