"""Blocks from many threads in common batches: each gets its own rows back, and none waits long."""

import threading
import time
from concurrent import futures

import numpy as np
import pytest

from tfdrl.parts.batching import Batcher, StoppedError, padded_sizes

_LEAVES = [((), np.dtype(np.int32)), ((2,), np.dtype(np.float32))]


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


def check(batcher, number, rows):
    given = block(number, rows)
    outputs, place = batcher.compute(given)
    for found, sent in zip(outputs, given):
        np.testing.assert_array_equal(found[place], 2 * sent)


def test_every_block_gets_its_own_rows():
    compute = Doubler(0.001)
    batcher = make(compute, slots=2)
    generator = np.random.default_rng(0)
    rows = generator.integers(1, 9, (6, 50))

    def play(number):
        for count in rows[number]:
            check(batcher, number, count)

    with futures.ThreadPoolExecutor(6) as pool:
        list(pool.map(play, range(6)))
    assert sum(count for _, count, _ in compute.batches) == rows.sum()
    assert {padded for padded, _, _ in compute.batches} <= {1, 2, 4, 8}
    assert all(count <= padded < max(2 * count, 2) for padded, count, _ in compute.batches)
    assert {slot for _, _, slot in compute.batches} == {0, 1}
    batcher.close()


def test_full_batch_leaves_at_once_and_others_wait_for_the_limit():
    compute = Doubler()
    batcher = make(compute, limit_secs=0.5)
    start_secs = time.monotonic()
    check(batcher, 1, 4)
    assert time.monotonic() - start_secs < 0.25
    start_secs = time.monotonic()
    check(batcher, 1, 3)
    assert 0.45 < time.monotonic() - start_secs < 1.0
    assert [count for _, count, _ in compute.batches] == [4, 3]
    found = batcher.statistics.take()
    assert found["inference/batch_rows"] == 3.5 and found["inference/late_share"] == 0.5
    assert found["inference/p99_ms"] > 400 > found["inference/p50_ms"] - 250
    assert batcher.statistics.take() == {}
    batcher.close()


def test_blocks_that_come_while_a_batch_is_computed_form_the_next():
    compute = Doubler(0.2)
    batcher = make(compute)
    with futures.ThreadPoolExecutor(4) as pool:
        first = pool.submit(check, batcher, 0, 4)
        time.sleep(0.05)
        others = [pool.submit(check, batcher, i, 2) for i in (1, 2)]
        for future in (first, *others):
            future.result(5.0)
    assert [count for _, count, _ in compute.batches] == [4, 4]
    batcher.close()


def test_block_that_does_not_fit_starts_a_batch_of_its_own():
    compute = Doubler()
    batcher = make(compute, rows_wanted=8, limit_secs=0.2)
    with futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(check, batcher, 0, 5)
        time.sleep(0.05)
        second = pool.submit(check, batcher, 1, 6)
        first.result(5.0)
        second.result(5.0)
    assert [count for _, count, _ in compute.batches] == [5, 6]
    batcher.close()


def test_error_reaches_every_block_of_the_batch_and_no_other():
    def compute(arrays, count, slot):
        if (arrays[0][:count] == 0).any():
            raise ZeroDivisionError("a zero")
        return [2 * array for array in arrays]

    batcher = make(compute)
    with futures.ThreadPoolExecutor(2) as pool:
        both = [pool.submit(check, batcher, i, 2) for i in (0, 1)]
        for future in both:
            with pytest.raises(ZeroDivisionError, match="a zero"):
                future.result(5.0)
    check(batcher, 1, 4)
    batcher.close()


def test_closing_frees_who_waits_and_who_comes():
    batcher = make(Doubler(), limit_secs=60.0)
    with futures.ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(check, batcher, 1, 1)
        time.sleep(0.1)
        batcher.close()
        with pytest.raises(StoppedError):
            waiting.result(5.0)
    with pytest.raises(StoppedError):
        batcher.compute(block(1, 1))
    assert not [t for t in threading.enumerate() if t.name.startswith("inference-")]


def test_padded_sizes():
    assert padded_sizes(1) == [1]
    assert padded_sizes(8) == [1, 2, 4, 8]
    assert padded_sizes(48) == [1, 2, 4, 8, 16, 32, 48]
