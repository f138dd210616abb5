"""Blocks from many streams in common batches: each gets its own rows back, and none waits long."""

import asyncio
import functools
import threading
import time

import numpy as np
import pytest

from tfdrl.inference.batcher import Batcher, BatcherStoppedError, padded_sizes

_LEAVES = [((), np.dtype(np.int32)), ((2,), np.dtype(np.float32))]


def in_a_loop(test):
    """Runs a test that is a coroutine, within a time limit."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        asyncio.run(asyncio.wait_for(test(*args, **kwargs), 30.0))

    return run


class Doubler:
    """Computes twice its input, and remembers the batches."""

    def __init__(self, delay_secs=0.0):
        self.batches, self.delay_secs = [], delay_secs

    def __call__(self, arrays, count, slot):
        self.batches.append((len(arrays[0]), count, slot))
        time.sleep(self.delay_secs)
        return [2 * array for array in arrays]


def make(compute, rows_wanted=4, limit_secs=0.05, **settings):
    settings = {"max_rows": 8, **settings}
    return Batcher(
        *(_LEAVES, compute),
        rows_wanted=lambda: rows_wanted,
        time_limit_secs=limit_secs,
        **settings,
    )


def block(number, rows):
    ids = np.arange(rows, dtype=np.int32) + 100 * number
    return [ids, np.stack([ids, -ids], 1).astype(np.float32)]


async def check(batcher, number, rows):
    given = block(number, rows)
    outputs, place = await batcher.compute(given)
    for found, sent in zip(outputs, given):
        np.testing.assert_array_equal(found[place], 2 * sent)


@in_a_loop
async def test_every_block_gets_its_own_rows():
    compute = Doubler(0.001)
    batcher = make(compute, slots=2)
    generator = np.random.default_rng(0)
    rows = generator.integers(1, 9, (6, 50))

    async def play(number):
        for count in rows[number]:
            await check(batcher, number, count)

    await asyncio.gather(*map(play, range(6)))
    assert sum(count for _, count, _ in compute.batches) == rows.sum()
    assert {padded for padded, _, _ in compute.batches} <= {1, 2, 4, 8}
    assert all(count <= padded < max(2 * count, 2) for padded, count, _ in compute.batches)
    assert {slot for _, _, slot in compute.batches} == {0, 1}
    batcher.close()


@in_a_loop
async def test_full_batch_leaves_at_once_and_others_wait_for_the_limit():
    compute = Doubler()
    batcher = make(compute, limit_secs=0.5)
    start_secs = time.monotonic()
    await check(batcher, 1, 4)
    assert time.monotonic() - start_secs < 0.25
    start_secs = time.monotonic()
    await check(batcher, 1, 3)
    assert 0.45 < time.monotonic() - start_secs < 1.0
    assert [count for _, count, _ in compute.batches] == [4, 3]
    found = batcher.statistics.take()
    assert found["inference/batch_rows"] == 3.5 and found["inference/late_share"] == 0.5
    assert found["inference/p99_ms"] > 400 > found["inference/p50_ms"] - 250
    assert batcher.statistics.take() == {}
    batcher.close()


@in_a_loop
async def test_blocks_that_come_while_a_batch_is_computed_form_the_next():
    compute = Doubler(0.2)
    batcher = make(compute)
    first = asyncio.create_task(check(batcher, 0, 4))
    await asyncio.sleep(0.05)
    await asyncio.gather(first, *(check(batcher, i, 2) for i in (1, 2)))
    assert [count for _, count, _ in compute.batches] == [4, 4]
    batcher.close()


@in_a_loop
async def test_block_that_does_not_fit_starts_a_batch_of_its_own():
    compute = Doubler()
    batcher = make(compute, rows_wanted=8, limit_secs=0.2)
    await asyncio.gather(check(batcher, 0, 5), check(batcher, 1, 6))
    assert [count for _, count, _ in compute.batches] == [5, 6]
    batcher.close()


@in_a_loop
async def test_error_reaches_every_block_of_the_batch_and_no_other():
    def compute(arrays, count, slot):
        if (arrays[0][:count] == 0).any():
            raise ZeroDivisionError("a zero")
        return [2 * array for array in arrays]

    batcher = make(compute)
    both = [asyncio.create_task(check(batcher, i, 2)) for i in (0, 1)]
    for task in both:
        with pytest.raises(ZeroDivisionError, match="a zero"):
            await task
    await check(batcher, 1, 4)
    batcher.close()


@in_a_loop
async def test_closing_frees_who_waits_and_who_comes():
    batcher = make(Doubler(), limit_secs=60.0)
    waiting = asyncio.create_task(check(batcher, 1, 1))
    await asyncio.sleep(0.1)
    await asyncio.to_thread(batcher.close)
    with pytest.raises(BatcherStoppedError):
        await waiting
    with pytest.raises(BatcherStoppedError):
        await batcher.compute(block(1, 1))
    assert not [t for t in threading.enumerate() if t.name.startswith("inference")]


@in_a_loop
async def test_a_block_whose_stream_is_gone_harms_nobody():
    batcher = make(Doubler(0.1), limit_secs=0.5)
    gone = asyncio.create_task(check(batcher, 0, 2))
    await asyncio.sleep(0.05)
    gone.cancel()
    await check(batcher, 1, 2)
    await check(batcher, 2, 4)
    batcher.close()


@in_a_loop
async def test_many_blocks_wait_for_room_and_all_are_served():
    batcher = make(Doubler(0.02), rows_wanted=8)
    await asyncio.gather(*(check(batcher, i, 8) for i in range(10)))
    batcher.close()


@in_a_loop
async def test_batch_of_all_there_are_is_computed_by_the_loop_itself():
    threads = []

    def compute(arrays, count, slot):
        threads.append(threading.current_thread())
        return [2 * array for array in arrays]

    batcher = make(compute, rows_present=lambda: 4)
    for _ in range(3):
        await asyncio.gather(check(batcher, 0, 2), check(batcher, 1, 2))
    # The first may have to be compiled.
    assert [thread is threading.current_thread() for thread in threads] == [False, True, True]
    batcher.close()


@in_a_loop
async def test_batch_leaves_when_fewer_rows_are_wanted_than_before():
    wanted = [4]
    batcher = Batcher(
        *(_LEAVES, Doubler()),
        **{"max_rows": 8, "rows_wanted": lambda: wanted[0], "time_limit_secs": 60.0},
    )
    waiting = asyncio.create_task(check(batcher, 0, 2))
    await asyncio.sleep(0.05)
    wanted[0] = 2
    batcher.look_again()
    await waiting
    batcher.close()


def test_padded_sizes():
    assert padded_sizes(1) == [1]
    assert padded_sizes(8) == [1, 2, 4, 8]
    assert padded_sizes(48) == [1, 2, 4, 8, 16, 32, 48]
