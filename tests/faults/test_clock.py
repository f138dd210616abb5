"""Whole local runs whose clock is set back and forth by an hour while they train."""

import json
import re
import subprocess
import sys
import time

import pytest
from local_runs import Run
from paths import CHECKOUT, DATA, python_path
from set_clock import SetClock

from tfdrl.rpc import usage_log

_HOUR_SECS = 3600.0
_WAITS = """
import ctypes, sys, time
libc = ctypes.CDLL(None, use_errno=True)
room = lambda: ctypes.create_string_buffer(64)
condition, mutex = room(), room()
for line in sys.stdin:
    end_secs = time.time() + float(line)
    end = (ctypes.c_long * 2)(int(end_secs), int(end_secs % 1 * 1e9))
    begin_secs = time.monotonic()
    libc.pthread_mutex_lock(mutex)
    while not libc.pthread_cond_timedwait(condition, mutex, end):
        print("again", flush=True)
    libc.pthread_mutex_unlock(mutex)
    print(time.time(), libc.time(None), time.monotonic() - begin_secs, flush=True)
"""


def test_only_the_time_of_day_is_set_and_waits_end_by_it(tmp_path):
    clock = SetClock(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", _WAITS],
        env=clock.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:

        def begin(wait_secs):
            process.stdin.write(f"{wait_secs}\n")
            process.stdin.flush()
            if wait_secs > 0.1:
                assert process.stdout.readline() == "again\n"  # it waits

        def ended():
            while (line := process.stdout.readline()) == "again\n":
                pass
            return map(float, line.split())

        for offset_secs in (0.0, -_HOUR_SECS, _HOUR_SECS):
            clock.set(offset_secs)
            begin(0.0)
            shown_secs, seconds, passed_secs = ended()
            assert shown_secs - time.time() == pytest.approx(offset_secs, abs=5)
            assert abs(seconds - shown_secs) <= 1.5 and passed_secs < 5
        clock.set(0.0)
        begin(_HOUR_SECS / 2)
        clock.set(_HOUR_SECS)  # the time it waits for has passed
        assert list(ended())[2] < 5
        process.stdin.close()


class _RunUnderClock(Run):
    """A run of which every process takes the time of day from a clock that a test sets."""

    def __init__(self, gin_file, root_dir, clock, log, *flags):
        self.root_dir, self._log = root_dir, log
        command = [sys.executable, "-m", "binaries.train", f"--gin_file={gin_file}"]
        with log.open("wb") as file:
            self.popen = subprocess.Popen(
                [*command, f"--root_dir={root_dir}", *flags],
                cwd=CHECKOUT,
                env={**clock.environment, "PYTHONPATH": python_path()},
                stdout=file,
                stderr=subprocess.STDOUT,
            )


_PERIODS = {
    "dqn_catch": ["dqn.checkpoint_period_steps = 100", "experiment.max_learner_steps = None"],
    "impala_catch": ["impala.learner_checkpoint_period_secs = 1.0"],
}


def _newest(root_dir):
    """The learner step of the newest checkpoint; -1 if there is none."""
    paths = (root_dir / "checkpoints").glob("checkpoint-*.index")
    return max((int(path.stem[11:]) for path in paths), default=-1)


def _train(run, clock, offsets_secs):
    """Sets the clock whenever a checkpoint and 100 steps are new; the statuses, oldest first."""
    statuses, offsets_secs, begin = [], iter(offsets_secs), None
    for status in run.statuses():
        statuses.append(status)
        now = status.learner_step, _newest(run.root_dir)
        begin = begin or (now if status.learner_step else None)
        if begin is None or now[0] < begin[0] + 100 or now[1] <= begin[1]:
            continue
        offset_secs = next(offsets_secs, None)
        if offset_secs is None:
            return statuses
        clock.set(offset_secs)
        begin = now
    pytest.fail(f"it has ended\n{run.output}")


def _stop(run):
    """As Ctrl-C does, but told by SIGTERM; the result."""
    run.popen.terminate()
    assert run.popen.wait(60) == 0, run.output
    result = json.loads((run.root_dir / "result.json").read_text())
    assert "told to stop" in result["reason"]
    return result


def _check_times(run, result, limit_secs):
    """What the run says of its own time is what passed."""
    elapsed = re.findall(r"^elapsed (\d+):(\d\d):(\d\d)", run.output, re.MULTILINE)
    shown_secs = [3600 * int(h) + 60 * int(m) + int(s) for h, m, s in elapsed]
    assert shown_secs == sorted(shown_secs) and shown_secs[-1] <= limit_secs
    assert 0 < result["training_secs"] <= limit_secs
    for path in (run.root_dir / "usage").glob("*.jsonl"):
        for looks in usage_log.read(path):  # of each start
            secs = [usage.secs for usage in looks]
            assert secs == sorted(secs) and secs[-1] - secs[0] <= limit_secs, path
    for word in (" died", "stuck", "Traceback", "for want of"):
        assert word not in run.output, run.output


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", _PERIODS)
def test_a_run_goes_on_whatever_its_clock_is_set_to_and_is_continued(name, tmp_path):
    clock, root_dir, result = SetClock(tmp_path), tmp_path / "run", None
    bindings = [*_PERIODS[name], "experiment.solved_return = None", "experiment.max_minutes = 20.0"]
    flags = [f"--gin_bindings={text}" for text in bindings]
    start_secs = time.monotonic()
    for start, offsets_secs in enumerate([(-_HOUR_SECS, _HOUR_SECS), (-_HOUR_SECS, 0.0)]):
        log = tmp_path / f"launcher-{start}.log"
        run = _RunUnderClock(DATA / f"{name}.gin", root_dir, clock, log, *flags)
        try:
            statuses = _train(run, clock, offsets_secs)
            before, result = result, _stop(run)
            _check_times(run, result, time.monotonic() - start_secs)
        finally:
            run.kill()
        for count in ("frames", "learner_step", "version"):
            values = [getattr(status, count) for status in statuses]
            assert values == sorted(values), count
        ages_secs = [status.metrics.get("learner/sample_age_secs", 0.0) for status in statuses]
        if before is None:
            assert 0 <= min(ages_secs) <= max(ages_secs) < 600
        else:  # what was acted before is as old as the clock says that it is
            assert statuses[0].learner_step >= before["learner_steps"] > 0
            assert statuses[0].frames >= before["frames"] > 0
        assert _newest(root_dir) == result["learner_steps"]
