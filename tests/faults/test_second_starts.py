"""A run that is over is started again, and one is told to stop before its first step.

Both leave what was there at least as good as it was: result, checkpoints, exported policy.
"""

import json
import os
import signal
import time

import pytest
from local_runs import LIMIT_SECS, Run, train
from paths import DATA

_STEPS = 60
_ARCHITECTURES = [
    *("dqn", "apex", "r2d2", "gorila", "gorila_global", "a3c", "impala"),
    *("seed", "seed_r2d2"),
]


def _kept(root_dir):
    """What must not get worse: counts, the best return, and that of the exported policy."""
    result = json.loads((root_dir / "result.json").read_text())
    evaluation = root_dir / "policy" / "evaluation.json"
    exported = json.loads(evaluation.read_text())["mean"] if evaluation.exists() else -2.0
    best = -2.0 if result["best_return"] is None else result["best_return"]
    return [result["learner_steps"], result["frames"], best, exported]


def _newest_checkpoint(root_dir):
    paths = (root_dir / "checkpoints").glob("checkpoint-*.index")
    return max(int(path.stem.rpartition("-")[2]) for path in paths)


def _has_restored(run):
    """Whether the chief has said so, in this start."""
    logs = [*run.root_dir.glob("logs/learner-0.log"), *run.root_dir.glob("logs/coordinator-0.log")]
    return any("continuing from learner step" in log.read_text() for log in logs)


def _check(root_dir, before, reason):
    assert json.loads((root_dir / "result.json").read_text())["reason"].startswith(reason)
    summary = (root_dir / "summary.txt").read_text()
    assert reason in summary and "exit code 0" in summary
    after = _kept(root_dir)
    assert all(now >= then for now, then in zip(after, before)), (before, after)
    assert _newest_checkpoint(root_dir) >= before[0]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("architecture", _ARCHITECTURES)
def test_nothing_gets_worse(tmp_path, architecture):
    gin_file, root_dir = DATA / f"{architecture}_catch.gin", tmp_path / "run"
    no_end, end = "experiment.solved_return = None", "experiment.max_learner_steps = {}"
    train(gin_file, root_dir, no_end, end.format(_STEPS))
    before = _kept(root_dir)
    assert before[0] >= _STEPS

    train(gin_file, root_dir, no_end, end.format(_STEPS))
    _check(root_dir, before, "reached max_learner_steps")

    before = _kept(root_dir)
    for log in (root_dir / "logs").glob("*.log"):
        log.unlink()
    bindings = [f"--gin_bindings={text}" for text in (no_end, end.format(1000 * _STEPS))]
    run = Run(gin_file, root_dir, *bindings, "--allow_config_change")
    try:
        deadline_secs = time.monotonic() + LIMIT_SECS
        while not _has_restored(run):
            assert run.popen.poll() is None and time.monotonic() < deadline_secs, run.output
            time.sleep(0.01)
        os.kill(run.popen.pid, signal.SIGTERM)
        assert run.wait() == 0, run.output
        assert not run.processes()
    finally:
        run.kill()
    _check(root_dir, before, "told to stop")
