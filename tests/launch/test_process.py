"""What a process asks of the kernel."""

import os
import subprocess
import sys
import time

import pytest
from mortal import PARENT_VARIABLE
from paths import python_path

from tfdrl.errors import TfdrlError
from tfdrl.launch import process

_PARENT = f"""
import os, subprocess, sys, time
os.environ["{PARENT_VARIABLE}"] = str(os.getpid())
child = [sys.executable, "-c", "import mortal; mortal.console()", "forked_role", "wait"]
subprocess.Popen(child, start_new_session=True)
time.sleep(60)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own signal is Linux's")
def test_what_tests_fork_dies_with_them():
    """By `die_with_parent`: the parent is killed, and can tell nobody."""
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT],
        env={**os.environ, "PYTHONPATH": python_path()},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert parent.stdout.readline() == b"waits\n"
        start_secs = time.monotonic()
        parent.kill()
        assert parent.stdout.read() == b""  # until the last that holds it has ended
        assert time.monotonic() - start_secs < 10.0
    finally:
        parent.kill()
        parent.wait()


def test_what_ends_its_own_process_has_not_returned():
    with pytest.raises(TfdrlError, match=r"its simulator has ended its process: .* exit\(0\)"):
        process.run_apart(lambda: os._exit(0), 10.0, "its simulator")
    process.run_apart(lambda: None, 10.0, "its simulator")


@pytest.mark.skipif(sys.platform != "linux", reason="by the C library of Linux")
@pytest.mark.parametrize(("end", "code"), [("ctypes.CDLL(None).exit(0)", 1), ("leave(0)", 0)])
def test_a_role_whose_simulator_calls_exit_has_failed(end, code):
    """Wherever it was started: its launcher sees the exit code alone."""
    program = (
        f"import ctypes; from tfdrl.launch.process import *; fail_on_exit('tfdrl actor'); {end}"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": python_path()},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stderr
    words = "tfdrl actor: something in this process, such as a simulator, has called exit()"
    assert (words in done.stderr) == bool(code)
