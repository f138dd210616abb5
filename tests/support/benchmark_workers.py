"""What the workers of test_processes.py do."""

import os
import time


def counting(job, first):
    """Yields its process id and seed, and then how far it has counted."""
    told = yield os.getpid(), job.seed, job.config.environments_per_actor
    while True:
        first += told
        told = yield first


def failing(job):
    raise RuntimeError(f"with seed {job.seed}")


def sleeping(job):
    time.sleep(60)
