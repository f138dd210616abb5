"""The learner's own queue of unrolls: in order, bounded, and nobody waits for ever."""

import asyncio
import time

import numpy as np
import pytest
import tree
from scripted_unrolls import acted_at, state_at, step_at, unrolls_of

from tfdrl.experience.unroll_queue import ClosedError, UnrollQueue
from tfdrl.experience.unrolls import UnrollCollector


def collected(num_envs, unroll_steps, count, overlap=0):
    """Consecutive unrolls, as a collector makes them; without overlap those of `unrolls_of`."""
    collector, found, t = UnrollCollector(unroll_steps, overlap), [], 0
    collector.start(step_at(0, num_envs), state_at(0, num_envs), version=0)
    while len(found) < count:
        then, state = step_at(t + 1, num_envs), state_at(t + 1, num_envs)
        complete = collector.add(*acted_at(t, num_envs), then, state, version=len(found) + 1)
        t += 1
        assert (complete is None) == bool(t % (unroll_steps - overlap))
        if complete is not None:
            found.append(complete)
    return found


def test_overlapping_unrolls_share_steps_and_have_the_state_before_their_first():
    first, second, third = collected(num_envs=3, unroll_steps=5, count=3, overlap=2)
    # Steps 0 to 3 after two zeros, then 1 to 6 and 4 to 9: three new transitions each.
    for unrolls, start in ((second, 1), (third, 4)):
        for t in range(6):
            found = tree.map_structure(lambda leaf: leaf[t], unrolls.steps)  # noqa: B023
            for left, right in zip(tree.flatten(found), tree.flatten(step_at(start + t, 3))):
                np.testing.assert_array_equal(left, right)
        for t in range(5):
            found = tree.map_structure(lambda leaf: leaf[t], unrolls.acted)  # noqa: B023
            for left, right in zip(tree.flatten(found), tree.flatten(acted_at(start + t, 3))):
                np.testing.assert_array_equal(left, right)
        for left, right in zip(unrolls.policy_state, state_at(start, 3)):
            np.testing.assert_array_equal(left, right)
    for leaf in tree.flatten(first.steps):
        assert not leaf[:2].any()
    np.testing.assert_array_equal(first.steps.reward[2], step_at(0, 3).reward)
    assert [unrolls.version for unrolls in (first, second, third)] == [0, 1, 2]


@pytest.mark.parametrize("overlap", range(9))
@pytest.mark.parametrize("trained", range(1, 9))
def test_the_state_is_of_before_the_first_step_for_any_pair_of_lengths(trained, overlap):
    found = collected(num_envs=2, unroll_steps=overlap + trained, count=6, overlap=overlap)
    for number, unrolls in enumerate(found):
        start = number * trained - overlap
        # Before the run there is nothing: the initial state, over steps of zeros.
        for left, right in zip(unrolls.policy_state, state_at(max(start, 0), 2)):
            np.testing.assert_array_equal(left, right)
        padding = min(max(-start, 0), overlap)
        for leaf in tree.flatten(unrolls.steps):
            assert not leaf[:padding].any()
        first = tree.map_structure(lambda leaf: leaf[padding], unrolls.steps)  # noqa: B023
        for left, right in zip(tree.flatten(first), tree.flatten(step_at(start + padding, 2))):
            np.testing.assert_array_equal(left, right)


def test_arrays_are_used_again_after_their_release():
    collector = UnrollCollector(2)
    collector.start(step_at(0, 2), (), 0)
    seen = []
    for t in range(12):
        complete = collector.add(*acted_at(t, 2), step_at(t + 1, 2), (), 0)
        if complete is not None:
            np.testing.assert_array_equal(complete.steps.reward[0], step_at(t - 1, 2).reward)
            seen.append(id(complete.steps.reward))
            complete.release()
    assert len(set(seen)) == 2


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
    first, second, third = (queue.take(1, 1.0).steps.reward for _ in range(3))
    assert second is not first and third is first


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

    async def write():
        assert queue.put(blocks[0]) is None and queue.put(blocks[1]) is None
        room = queue.put(blocks[2])
        await asyncio.sleep(0.1)
        assert not room.done() and len(queue) == 6  # one block over, never two
        taken = await asyncio.to_thread(queue.take, 4, 1.0)
        assert _versions(taken) == [0, 0, 0, 1]
        await asyncio.wait_for(room, 2.0)
        assert len(queue) == 5

    asyncio.run(write())


def test_block_of_a_writer_that_went_while_he_waited_is_taken_all_the_same():
    queue = UnrollQueue(1)
    blocks = collected(num_envs=1, unroll_steps=2, count=2)

    async def write():
        queue.put(blocks[0])
        queue.put(blocks[1]).cancel()
        assert _versions(queue.take(1, 1.0)) == [0]
        assert _versions(queue.take(1, 1.0)) == [1]
        await asyncio.sleep(0.05)

    asyncio.run(write())


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

    async def write():
        queue.put(block)
        room = queue.put(block)
        await asyncio.to_thread(queue.close)
        with pytest.raises(ClosedError):
            await asyncio.wait_for(room, 2.0)
        with pytest.raises(ClosedError):
            queue.put(block)

    asyncio.run(write())
