"""SEED RL with every role as a real process: it learns, though an actor is killed."""

import json
import os
import pathlib
import signal

import pytest
import tensorflow as tf
from local_runs import Run
from paths import DATA

_GIN = DATA / "seed_catch.gin"


@pytest.fixture(scope="module")
def root_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("seed") / "run"


def test_solves_catch_although_an_actor_is_killed(root_dir):
    run = Run(_GIN, root_dir)
    try:
        killed, statuses, maps = None, [], ""
        for status in run.statuses():
            statuses.append(status)
            actors = [role for role in status.roles if role.role == "actor"]
            if killed is None and status.learner_step > 50 and len(actors) == 2:
                killed = status
                (pid,) = run.processes("--role=actor", "--task=0")
                maps = pathlib.Path(f"/proc/{pid}/maps").read_text()
                os.kill(pid, signal.SIGKILL)
        output = run.output
        assert run.popen.returncode == 0, output
        assert not run.processes()
    finally:
        run.kill()
    assert "actor 0 died (killed by SIGKILL); starting it again" in output
    assert "solved: mean return" in output
    assert "grpc" in maps and "tensorflow" not in maps
    result = json.loads((root_dir / "result.json").read_text())
    assert result["evaluation"]["mean"] >= 0.95
    assert result["learner_steps"] > killed.learner_step + 20

    frames = [status.frames for status in statuses]
    assert frames == sorted(frames)
    # Every unroll is learnt from once. A second of each actor may be uncounted; some unrolls wait.
    learnt_frames = result["learner_steps"] * 8 * 16
    assert 0.7 * learnt_frames < result["frames"] < 1.3 * learnt_frames + 5000

    metrics = statuses[-1].metrics
    assert 0 <= metrics["learner/policy_lag"] < 10
    assert metrics["inference/batch_rows"] >= 8
    assert metrics["inference/p99_ms"] >= metrics["inference/p50_ms"] > 0
    assert {role.task for role in statuses[-1].roles if role.role == "actor"} == {0, 1}


def test_leaves_summary_checkpoint_policy_and_events(root_dir):
    assert "solved: mean return" in (root_dir / "summary.txt").read_text()
    assert (root_dir / "checkpoints" / "operative_config.gin").exists()
    assert tf.saved_model.contains_saved_model(root_dir / "policy")
    for role in ("learner-0", "evaluator-0"):
        assert list((root_dir / "tensorboard" / role).glob("events.*")), role
    for task in (0, 1):
        assert "stopped: solved" in (root_dir / "logs" / f"actor-{task}.log").read_text()
