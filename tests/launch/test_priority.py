"""A role with niceness gives way to the others, also where each is a session of its own."""

import os
import subprocess
import sys
import time

import pytest

from tfdrl.launch import priority

_SPIN = """
import os, resource, sys
os.sched_setaffinity(0, {int(sys.argv[1])})
from tfdrl.launch import priority
priority.lower(int(sys.argv[2]))
print("ready", flush=True)
sys.stdin.readline()
while True:
    pass
"""


def _cpu_secs(pid):
    with open(f"/proc/{pid}/stat") as file:
        user, system = file.read().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def test_of_two_sessions_on_one_core_the_nice_one_gets_little():
    core = str(min(os.sched_getaffinity(0)))
    spinning = [
        subprocess.Popen(
            [sys.executable, "-c", _SPIN, core, niceness],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for niceness in ("0", "10")
    ]
    try:
        for process in spinning:
            assert process.stdout.readline() == "ready\n"
        for process in spinning:
            process.stdin.write("\n")
            process.stdin.flush()
        before = [_cpu_secs(process.pid) for process in spinning]
        end_secs = time.monotonic() + 30
        while sum(map(_cpu_secs, (p.pid for p in spinning))) < sum(before) + 1.0:
            assert time.monotonic() < end_secs
            time.sleep(0.05)
        first, nice = (_cpu_secs(p.pid) - secs for p, secs in zip(spinning, before))
    finally:
        for process in spinning:
            process.kill()
            process.communicate()
    assert nice < first / 4  # 110 against 1,024 shares: a ninth


def test_the_session_of_a_shell_stays_as_it_is(monkeypatch):
    monkeypatch.setattr(os, "nice", lambda niceness: niceness)
    monkeypatch.setattr(os, "getsid", lambda pid: os.getppid())
    monkeypatch.setattr(os, "open", None)
    priority.lower(10)


@pytest.mark.parametrize("refusals", [0, 3])
def test_a_kernel_that_is_asked_too_often_is_asked_again(monkeypatch, refusals):
    written, left = [], [BlockingIOError()] * refusals

    def write(file, text):
        if left:
            raise left.pop()
        written.append(text)

    monkeypatch.setattr(os, "open", lambda path, flags: 99)
    monkeypatch.setattr(os, "close", lambda file: None)
    monkeypatch.setattr(os, "write", write)
    priority._lower_autogroup(7)
    assert written == [b"7"]
