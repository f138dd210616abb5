"""A role with niceness gives way to the others, also where each is a session of its own."""

import logging
import os
import subprocess
import sys
import time

import pytest
from paths import python_path

from tfdrl.benchmarks.proc import cpu_secs
from tfdrl.launch import priority

_SPIN = """
import os, sys, time
os.sched_setaffinity(0, {int(sys.argv[1])})
from tfdrl.launch import priority
priority.lower(int(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
end_secs = time.monotonic() + 100
while time.monotonic() < end_secs:
    pass
"""


def _spinning(niceness, inherited=0):
    core = str(min(os.sched_getaffinity(0)))
    return subprocess.Popen(
        [sys.executable, "-c", _SPIN, core, str(niceness)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": python_path()},
        start_new_session=True,
        preexec_fn=lambda: os.nice(inherited),
    )


@pytest.mark.parametrize(("niceness", "inherited"), [(10, 0), (0, 10)])
def test_of_two_sessions_on_one_core_the_nice_one_gets_little(niceness, inherited):
    spinning = [_spinning(0), _spinning(niceness, inherited)]
    try:
        for process in spinning:
            assert process.stdout.readline() == "ready\n"
        before = [cpu_secs(process.pid) for process in spinning]
        for process in spinning:
            process.stdin.write("\n")
            process.stdin.flush()
        end_secs = time.monotonic() + 90
        while sum(cpu_secs(p.pid) for p in spinning) < sum(before) + 0.5:
            assert time.monotonic() < end_secs
            time.sleep(0.05)
        first, nice = (cpu_secs(p.pid) - secs for p, secs in zip(spinning, before))
    finally:
        for process in spinning:
            process.kill()
            process.communicate()
    assert nice < first / 3  # 110 against 1,024 shares: a ninth


@pytest.fixture()
def as_a_leader(monkeypatch, tmp_path):
    """Of a session, without changing this process; its autogroup is a file."""
    monkeypatch.setattr(os, "nice", lambda niceness: niceness)
    monkeypatch.setattr(os, "getsid", lambda pid: os.getpid())
    autogroup = tmp_path / "autogroup"
    autogroup.write_text("")
    monkeypatch.setattr(priority, "_AUTOGROUP", autogroup)
    return autogroup


def test_the_session_of_a_shell_stays_as_it_is(as_a_leader, monkeypatch):
    monkeypatch.setattr(os, "getsid", lambda pid: os.getppid())
    priority.lower(10)
    assert as_a_leader.read_text() == ""


def test_a_kernel_that_is_asked_too_often_is_asked_again(as_a_leader, monkeypatch):
    left, write = [BlockingIOError()] * 3, os.write

    def refuses_at_first(file, text):
        if left:
            raise left.pop()
        return write(file, text)

    monkeypatch.setattr(os, "write", refuses_at_first)
    priority.lower(7)
    assert as_a_leader.read_text() == "7" and not left


@pytest.mark.parametrize("error", [BlockingIOError(11, "busy"), PermissionError(13, "read-only")])
def test_a_session_that_cannot_be_made_nice_is_said(as_a_leader, monkeypatch, caplog, error):
    def refuses(file, text):
        raise error

    monkeypatch.setattr(priority, "_PATIENCE_SECS", 0.0)
    monkeypatch.setattr(os, "write", refuses)
    with caplog.at_level(logging.WARNING):
        priority.lower(7)
    assert f"cannot be written: {error.strerror}" in caplog.text
