"""What a benchmark reads of other processes: their time, and how long they had to wait for it."""

import contextlib
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

from tfdrl.benchmarks import measuring, proc


def test_cpu_time_of_another_process_grows_while_it_works():
    code = "import time\nend = time.monotonic() + 60\nwhile time.monotonic() < end: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as busy:
        try:
            time.sleep(0.5)
            used = proc.cpu_secs(busy.pid)
            time.sleep(0.5)
            assert 0 < proc.cpu_secs(busy.pid) - used < 1.0
        finally:
            busy.kill()


def test_two_that_share_a_core_delay_each_other():
    if not pathlib.Path("/proc/self/schedstat").exists():
        pytest.skip("this kernel does not count it")
    assert proc.delayed_secs(2**22 + 1) == {}  # nobody
    core = min(os.sched_getaffinity(0))
    code = f"import os\nos.sched_setaffinity(0, [{core}])\nwhile True: pass"
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", code]))
            stack.callback(busy.kill)
        before, limit_secs = _delayed_secs(busy.pid), time.monotonic() + 30.0
        while _delayed_secs(busy.pid) - before < 0.2:
            assert time.monotonic() < limit_secs
            time.sleep(0.1)


def _delayed_secs(pid):
    return sum(proc.delayed_secs(pid).values())


def test_delays_of_threads_beside_each_other_do_not_add_up(monkeypatch):
    """Nor do the server's count: its time is counted apart."""
    me, looks = threading.get_native_id(), iter((0.0, 0.01))

    def delays(pid):
        assert pid == os.getpid()
        return {me: 5.0, **dict.fromkeys(range(-9, 0), 1.0 + next(looks))}

    monkeypatch.setattr(measuring, "delayed_secs", delays)
    turn = measuring.Variant(lambda: time.sleep(0.2) or 1)(0.0, os.getppid())
    assert turn.delayed_secs == pytest.approx(0.01)


def test_a_turn_is_delayed_by_its_caller_and_by_one_that_computes_for_it():
    assert measuring._delay({1: 0.5, 2: 0.25, 3: 0.125}, 1, 4.0) == pytest.approx(0.75)
    assert measuring._delay({1: 0.5, 2: 3.0}, 1, 1.0) == 1.0
    assert measuring._delay({}, 1, 1.0) == 0.0  # the kernel does not count
