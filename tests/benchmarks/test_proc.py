"""What a benchmark reads of other processes: their time, and how long they had to wait for it."""

import contextlib
import os
import pathlib
import subprocess
import sys
import time

import pytest

from tfdrl.benchmarks import proc


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
    assert proc.delayed_secs(2**22 + 1) == 0.0  # nobody
    core = min(os.sched_getaffinity(0))
    code = f"import os\nos.sched_setaffinity(0, [{core}])\nwhile True: pass"
    with contextlib.ExitStack() as stack:
        for _ in range(2):
            busy = stack.enter_context(subprocess.Popen([sys.executable, "-c", code]))
            stack.callback(busy.kill)
        before, limit_secs = proc.delayed_secs(busy.pid), time.monotonic() + 30.0
        while proc.delayed_secs(busy.pid) - before < 0.2:
            assert time.monotonic() < limit_secs
            time.sleep(0.1)
