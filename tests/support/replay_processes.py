"""Replay servers in processes of their own: in one with the reader Reverb samples without gRPC."""

import contextlib
import os
import pathlib
import re
import tempfile
import time

import preloaded
from paths import TESTS, python_path

from tfdrl.topology import Address


@contextlib.contextmanager
def serving_elsewhere(function):
    """The address of what `module:function`, of the replay's tests, serves.

    Args:
      function: calls `serve_until_killed`.
    """
    directory = TESTS / "replay"
    environment = {**os.environ, "PYTHONPATH": python_path(directory)}
    with tempfile.TemporaryDirectory() as place:
        log = pathlib.Path(place) / "log"
        process = preloaded.Process("called", [function], log, environment, directory)
        try:
            deadline = time.monotonic() + 60
            while not (found := re.search(r"^serving on (\d+)$", log.read_text(), re.MULTILINE)):
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
            yield Address("localhost", int(found.group(1)))
        finally:
            process.kill()
            process.wait(10)


def serve_until_killed(address):
    """Tells the port and stays."""
    print(f"serving on {address.port}", flush=True)
    while True:
        time.sleep(60)


def given_out(replay, at_least=0, limit_secs=60.0):
    """Samples that the server of a `ReplayInfo` has given out, when no more come.

    Args:
      at_least: so many are waited for, in vain at most for the time limit.
    """
    before, deadline = -1, time.monotonic() + limit_secs
    while True:
        now = replay.table().rate_limiter_info.sample_stats.completed
        if now == before and (now >= at_least or time.monotonic() > deadline):
            return now
        before = now
        time.sleep(0.3)
