"""IMPALA with every role as a real process: it learns, though an actor is killed."""

import json
import os
import signal

import pytest
import tensorflow as tf
from local_runs import Run
from paths import DATA

_GIN = DATA / "impala_catch.gin"
_UNROLL_STEPS, _FRESH = 16, 4


@pytest.fixture(scope="module")
def root_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("impala") / "run"


def test_solves_catch_although_an_actor_is_killed(root_dir):
    run = Run(_GIN, root_dir)
    try:
        killed, statuses, unrolls = None, [], {}
        for status in run.statuses():
            statuses.append(status)
            for role in status.roles:
                if role.role == "actor" and "actor/unrolls" in role.metrics:
                    unrolls[role.task, role.run_id] = role.metrics["actor/unrolls"]
            if killed is None and status.learner_step > 20 and len(unrolls) == 2:
                killed = status
                (pid,) = run.processes("--role=actor", "--task=0")
                os.kill(pid, signal.SIGKILL)
        output = run.output
        assert run.popen.returncode == 0, output
        assert not run.processes()
    finally:
        run.kill()
    assert "actor 0 died (killed by SIGKILL); starting it again" in output
    assert "solved: mean return" in output
    result = json.loads((root_dir / "result.json").read_text())
    assert result["evaluation"]["mean"] >= 0.95
    assert result["learner_steps"] > killed.learner_step + 20

    frames = [status.frames for status in statuses]
    assert frames == sorted(frames)
    # Every unroll is learnt from once as a fresh one; some wait in the queue or are being acted.
    # What the killed actor had not reported yet, up to a second of it, is in no count.
    # An episode is nine steps; the tenth row of an unroll is a reset, which is no frame.
    learnt_frames = 0.9 * result["learner_steps"] * _FRESH * _UNROLL_STEPS
    assert learnt_frames <= result["frames"] + 2 * 1500
    assert learnt_frames > 0.8 * result["frames"]

    metrics = statuses[-1].metrics
    assert 0 <= metrics["learner/policy_lag"] < 30
    assert metrics["learner/replayed_policy_lag"] > metrics["learner/policy_lag"]
    assert metrics["learner/log_rho"] > 0.0


def test_leaves_summary_checkpoint_policy_and_events(root_dir):
    assert "solved: mean return" in (root_dir / "summary.txt").read_text()
    assert (root_dir / "checkpoints" / "operative_config.gin").exists()
    assert tf.saved_model.contains_saved_model(root_dir / "policy")
    for role in ("learner-0", "replay-0", "actor-0", "actor-1", "evaluator-0"):
        assert list((root_dir / "tensorboard" / role).glob("events.*")), role
