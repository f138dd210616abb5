"""Whole local runs that lose several roles at once, or their launcher, or change in size.

Whatever befalls them, the next start goes on from the checkpoints, and no count ever goes back.
"""

import json
import os
import pathlib
import signal
import time

import pytest
from local_runs import LIMIT_SECS, Run
from paths import DATA

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
_SAVED = {
    "a3c": ["coordinator_checkpoint"],
    "gorila": ["coordinator_checkpoint", "replay_checkpoint"],
    "impala": ["learner_checkpoint"],
}


def _bindings(name):
    """So that a run saves often, and ends when it is told to."""
    scope = name.split("_")[0]
    parts = _SAVED.get(scope, ["learner_checkpoint", "replay_checkpoint"])
    yield from (f"{scope}.{part}_period_secs = 2.0" for part in parts)
    yield from ("experiment.solved_return = None", "experiment.max_minutes = None")


def _start(name, root_dir, *bindings, flags=()):
    bindings = [f"--gin_bindings={text}" for text in (*_bindings(name), *bindings)]
    return Run(DATA / f"{name}.gin", root_dir, *bindings, *flags)


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


@pytest.mark.parametrize("name", ["apex_catch", "r2d2_catch", "gorila_global_catch"])
def test_replay_and_learner_killed_together_are_named_and_the_next_start_goes_on(name, tmp_path):
    root_dir = tmp_path / "run"
    run = _start(name, root_dir)
    try:
        _until(run, _saved(root_dir, 50))
        chief = "coordinator" if name.startswith("gorila") else "learner"
        pids = [pid for role in ("replay", chief) for pid in run.processes(f"--role={role}")]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert run.wait(60) == 1
        reason = next(line for line in run.output.splitlines() if line.startswith("ended "))
        assert "replay" in reason and chief in reason and reason.count("SIGKILL") == len(pids)
        assert "did not stop in time" not in run.output
    finally:
        run.kill()
    step = _checkpoint(root_dir)
    run = _start(name, root_dir)
    try:
        first = _until(run, lambda status: True)
        assert first.learner_step >= step > 50
        _until(run, lambda status: status.learner_step > first.learner_step + 50)
        result = _stop(run)
        assert result["learner_steps"] > step and result["frames"] > first.frames
    finally:
        run.kill()


def _beyond(before, learner_steps, frames):
    def holds(now):
        return (
            now.learner_step > before["learner_steps"] + learner_steps
            and now.frames > before["frames"] + frames
        )

    return holds


_NUMBERS = {
    "apex_catch": "apex.actors",
    "impala_catch": "impala.actors",
    "seed_catch": "seed.actors",
    "seed_r2d2_catch": "seed.actors",
    "a3c_catch": "a3c.workers",
    "gorila_catch": "gorila.workers",
}


@pytest.mark.parametrize("name", _NUMBERS)
def test_a_run_goes_on_with_more_and_with_fewer_actors(name, tmp_path):
    root_dir, setting = tmp_path / "run", _NUMBERS[name]
    before = {"frames": 0, "learner_steps": 0}
    for number in (2, 3, 1):
        flags = ["--allow_config_change"] if number != 2 else []
        run = _start(name, root_dir, f"{setting} = {number}", flags=flags)
        try:
            status = _until(run, _beyond(before, learner_steps=50, frames=500))
            assert status.frames >= before["frames"]
            result = _stop(run)
            assert all(result[key] > before[key] for key in before), (number, result, before)
            before = {key: result[key] for key in before}
        finally:
            run.kill()


def test_a_launcher_that_stands_still_for_a_minute_holds_nobody_up(tmp_path):
    """Meanwhile an actor dies, which it then sees."""
    run = _start("apex_catch", tmp_path / "run")
    try:
        stopped = _until(run, lambda status: status.learner_step > 50)
        os.kill(run.popen.pid, signal.SIGSTOP)
        start_secs = time.monotonic()
        os.kill(run.processes("--role=actor", "--task=1")[0], signal.SIGKILL)
        woken = _until(run, lambda status: time.monotonic() > start_secs + 60)
        assert woken.learner_step > stopped.learner_step + 50
        os.kill(run.popen.pid, signal.SIGCONT)
        _until(run, lambda status: "actor 1 died (killed by SIGKILL)" in run.output)
        _until(run, lambda status: status.learner_step > woken.learner_step + 50)
        assert run.output.count(" died ") == 1 and "stuck" not in run.output, run.output
        _stop(run)
    finally:
        run.kill()


_GROUPS = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")]


@pytest.fixture
def small_group():
    """The file that takes a process into a control group of 1 MB more than it has."""
    for root, limit in _GROUPS:
        group = pathlib.Path(root, f"tfdrl-test-{os.getpid()}")
        try:
            group.mkdir()
            (group / limit).write_text(str(1 << 20))
        except OSError:
            continue
        yield group / "cgroup.procs"
        group.rmdir()
        return
    pytest.skip("no control group can be made")


def test_a_replay_that_the_kernel_kills_for_want_of_memory_is_said_to_be(tmp_path, small_group):
    root_dir = tmp_path / "run"
    run = _start("apex_catch", root_dir)
    try:
        _until(run, _saved(root_dir, 50))
        (replay,) = run.processes("--role=replay")
        small_group.write_text(str(replay))
        assert run.wait(120) == 1
        assert "for want of memory: replay, as it seems" in run.output
        assert "ended " in run.output and "replay died (killed by SIGKILL)" in run.output
    finally:
        run.kill()
    run = _start("apex_catch", root_dir)
    try:
        first = _until(run, lambda status: status.learner_step > _checkpoint(root_dir))
        assert first.learner_step > 50
        _stop(run)
    finally:
        run.kill()
