"""Whole local runs that lose several roles at once: the next start goes on from the checkpoints."""

import json
import os
import signal

import pytest
from local_runs import LIMIT_SECS, Run
from paths import DATA

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


_BINDINGS = (
    "apex.learner_checkpoint_period_secs = 2.0",
    "apex.replay_checkpoint_period_secs = 2.0",
    "experiment.solved_return = None",
    "experiment.max_minutes = None",
)


def _start(root_dir):
    flags = [f"--gin_bindings={binding}" for binding in _BINDINGS]
    return Run(DATA / "apex_catch.gin", root_dir, *flags)


def _until(run, condition, limit_secs=LIMIT_SECS):
    """The first status for which the condition holds."""
    for status in run.statuses(limit_secs):
        if condition(status):
            return status
    pytest.fail(f"it has ended\n{run.output}")


def _checkpoint(root_dir):
    """The learner step of the newest checkpoint; -1 if there is none."""
    paths = (root_dir / "checkpoints").glob("checkpoint-*.index")
    return max((int(path.stem[11:]) for path in paths), default=-1)


def _saved(root_dir, after=0):
    return lambda status: _checkpoint(root_dir) > after


def _stop(run):
    """As Ctrl-C does; the result."""
    run.popen.send_signal(signal.SIGINT)
    assert run.wait(60) == 0, run.output
    return json.loads((run.root_dir / "result.json").read_text())


def test_replay_and_learner_killed_together_are_named_and_the_next_start_goes_on(tmp_path):
    root_dir = tmp_path / "run"
    run = _start(root_dir)
    try:
        _until(run, _saved(root_dir, 50))
        pids = [pid for role in ("replay", "learner") for pid in run.processes(f"--role={role}")]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert run.wait(60) == 1
        reason = next(line for line in run.output.splitlines() if line.startswith("ended "))
        assert "replay" in reason and "learner" in reason and reason.count("SIGKILL") == len(pids)
        assert "did not stop in time" not in run.output
    finally:
        run.kill()
    step = _checkpoint(root_dir)
    run = _start(root_dir)
    try:
        first = _until(run, lambda status: True)
        assert first.learner_step >= step > 50
        _until(run, lambda status: status.learner_step > first.learner_step + 50)
        result = _stop(run)
        assert result["learner_steps"] > step and result["frames"] > first.frames
    finally:
        run.kill()
