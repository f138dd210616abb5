"""Writing metrics costs no memory that stays."""

import ctypes
import os

import numpy as np

from tfdrl.benchmarks.proc import rss_bytes
from tfdrl.runtime.metrics import MetricsWriter


def _used_bytes():
    ctypes.CDLL(None).malloc_trim(0)  # what is free only waits to be used again
    return rss_bytes(os.getpid())


def test_what_is_written_is_not_kept(tmp_path):
    values = np.random.default_rng(1).random((70, 50)).tolist()
    writer = MetricsWriter(tmp_path, "learner", 0)
    for step, row in enumerate(values):
        if step == 20:
            before = _used_bytes()
        writer.write(step, {f"metric/{i}": value for i, value in enumerate(row)})
    kept = _used_bytes() - before
    writer.close()
    # TensorFlow's cache of Python numbers would have 2 MB of these: 800 bytes each.
    assert kept < 0.8e6
