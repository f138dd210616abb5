"""The learner's own queue of unrolls: in order, bounded, and nobody waits for ever."""

import threading
import time

import numpy as np
import pytest
from test_unroll_assembler import unrolls_of

from tfdrl.parts.unroll_queue import ClosedError, UnrollQueue


def _versions(unrolls):
    return unrolls.version.tolist()


def test_batches_are_the_oldest_unrolls_whatever_blocks_they_came_in():
    queue = UnrollQueue(8)
    for unrolls in unrolls_of(num_envs=3, unroll_steps=2, count=3):
        queue.put(unrolls)
    assert len(queue) == 9
    first, second = queue.take(5, 1.0), queue.take(4, 1.0)
    assert _versions(first) == [0, 0, 0, 1, 1] and _versions(second) == [1, 2, 2, 2]
    # Environment 2 of the second block, whose numbers name their place in the stream.
    assert second.steps.observation["a"][0].tolist() == [[2, 2], [3, 2], [4, 2]]
    assert len(queue) == 0 and queue.take(1, 0.01) is None


def test_full_queue_makes_writers_wait():
    queue = UnrollQueue(4)
    blocks = unrolls_of(num_envs=3, unroll_steps=2, count=3)
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
    queue.put(unrolls_of(num_envs=3, unroll_steps=2, count=1)[0])
    start_secs = time.monotonic()
    assert queue.take(4, 0.2) is None
    assert 0.19 < time.monotonic() - start_secs < 1.0
    assert np.array_equal(queue.take(3, 0.2).version, [0, 0, 0])


def test_closing_frees_who_waits():
    queue = UnrollQueue(1)
    block = unrolls_of(num_envs=1, unroll_steps=2, count=1)[0]
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
