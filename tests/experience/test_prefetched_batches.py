"""The next batch is filled during a learner step: the same ones, and none while it is read."""

import asyncio
import contextlib
import itertools
import threading
import time

import numpy as np
import pytest
import tree
from test_unroll_queue import collected

from tfdrl.experience.prefetched_batches import PrefetchedBatches
from tfdrl.experience.unroll_queue import UnrollQueue


@contextlib.contextmanager
def queue_of(capacity, blocks=()):
    queue = UnrollQueue(capacity)
    for block in blocks:
        queue.put(block)
    try:
        yield queue
    finally:
        queue.close()


def wait_until(condition, secs=30.0):
    deadline = time.monotonic() + secs
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def is_prefetched(batches):
    return not batches._prefetched.empty()


def equal(left, right):
    return all(map(np.array_equal, tree.flatten(left), tree.flatten(right)))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_batches_are_those_of_a_queue_that_fills_them_when_they_are_wanted(batch_size):
    blocks, count = collected(num_envs=3, unroll_steps=4, count=10), 30 // batch_size
    with queue_of(100, blocks) as plain:
        expected = [tree.map_structure(np.copy, plain.take(batch_size, 1.0)) for _ in range(count)]
    with queue_of(100, blocks) as queue:
        batches = PrefetchedBatches(queue, batch_size)
        for batch in expected:
            assert equal(batches.take(30.0), batch)
        assert len(queue) == 0 and batches.take(0.01) is None


def test_what_the_learner_reads_is_not_filled_again():
    """That it trains on, and the one before, whose numbers its metrics may still show."""
    blocks = collected(num_envs=2, unroll_steps=4, count=12)
    with queue_of(100, blocks) as queue:
        batches, held = PrefetchedBatches(queue, 2), []
        for number in range(12):
            batch = batches.take(30.0)
            held = [*held[-1:], (batch, tree.map_structure(np.copy, batch))]
            wait_until(lambda: number == 11 or is_prefetched(batches))  # noqa: B023
            for found, kept in held:
                assert equal(found, kept)


def test_a_prefetched_batch_is_in_the_queue_until_it_is_taken():
    blocks = collected(num_envs=2, unroll_steps=2, count=4)

    async def write(queue, batches):
        for block in blocks[:2]:
            assert queue.put(block) is None
        await asyncio.to_thread(wait_until, lambda: is_prefetched(batches))
        assert len(queue) == 4
        room = queue.put(blocks[2])  # full, as if nothing had been prefetched
        await asyncio.sleep(0.05)
        assert not room.done()
        assert (await asyncio.to_thread(batches.take, 30.0)).version.tolist() == [0, 0]
        await asyncio.wait_for(room, 30.0)
        assert len(queue) == 4

    with queue_of(4) as queue:
        asyncio.run(write(queue, PrefetchedBatches(queue, 2)))


def test_a_learner_step_is_time_enough_to_fill_the_next():
    """Taking waits for unrolls, not for copies of them."""
    blocks = collected(num_envs=2, unroll_steps=4, count=4)
    with queue_of(100, blocks) as queue:
        may_fill, fill = threading.Event(), queue.fill

        def fill_when_told(*arguments):
            assert may_fill.wait(30.0)
            return fill(*arguments)

        queue.fill = fill_when_told
        batches = PrefetchedBatches(queue, 2)
        for _ in range(3):
            may_fill.set()
            wait_until(lambda: is_prefetched(batches))  # the learner step
            may_fill.clear()
            assert batches.take(30.0) is not None


def test_what_cannot_be_filled_fails_the_learner():
    *good, bad = collected(num_envs=2, unroll_steps=4, count=4)
    bad = bad._replace(steps=bad.steps._replace(reward=bad.steps.reward[:, :, None]))
    with queue_of(100, [*good, bad]) as queue:
        batches = PrefetchedBatches(queue, 2)
        for _ in good:
            assert batches.take(30.0) is not None
        with pytest.raises(ValueError, match="broadcast"):
            batches.take(30.0)


def test_the_thread_ends_with_its_queue():
    def threads():
        return [each for each in threading.enumerate() if each.name == "batches"]

    wait_until(lambda: not threads())
    for _, prefetched in itertools.product(range(2), (False, True)):
        blocks = collected(num_envs=2, unroll_steps=2, count=int(prefetched))
        with queue_of(4, blocks) as queue:
            PrefetchedBatches(queue, 2)
            assert threads()
        wait_until(lambda: not threads())
