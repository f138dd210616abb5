"""Gorila with every role as a real process: it learns, though a worker and a server are killed."""

import json
import os
import signal

import pytest
import tensorflow as tf
from local_runs import Run, finish
from paths import DATA


@pytest.fixture(scope="module")
def root_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("gorila") / "run"


def _result(root_dir):
    return json.loads((root_dir / "result.json").read_text())


def _run(gin_file, root_dir, *flags, kills=()):
    """Runs to the end; kills these roles once it learns. Returns output and all statuses."""
    run = Run(gin_file, root_dir, *flags)
    try:
        statuses, waiting = [], list(kills)
        for status in run.statuses():
            statuses.append(status)
            if waiting and status.learner_step > 20:
                for role, task in waiting:
                    (pid,) = run.processes(f"--role={role}", f"--task={task}")
                    os.kill(pid, signal.SIGKILL)
                waiting = []
        output = run.output
        assert run.popen.returncode == 0, output
        assert not run.processes()
        assert not waiting
    finally:
        run.kill()
    for role, task in kills:
        assert f"{role} {task} died (killed by SIGKILL); starting it again" in output
    return output, statuses


def _check_solved(root_dir, output, statuses):
    assert "solved: mean return" in output
    assert _result(root_dir)["evaluation"]["mean"] >= 0.95
    for name in ("frames", "learner_step", "version"):
        counts = [getattr(status, name) for status in statuses]
        assert counts == sorted(counts), name
    metrics = statuses[-1].metrics
    assert metrics["gradients/accepted"] > 0.5 * _result(root_dir)["learner_steps"]
    assert metrics["gradients/non_finite"] == 0
    assert 0 <= metrics["gradients/age"] <= 20  # parameter_server.max_gradient_age


def test_solves_catch_although_a_worker_and_a_server_are_killed(root_dir):
    kills = (("worker", 0), ("parameter_server", 1))
    output, statuses = _run(DATA / "gorila_catch.gin", root_dir, kills=kills)
    _check_solved(root_dir, output, statuses)


def test_leaves_summary_checkpoints_policy_and_events(root_dir):
    assert "solved: mean return" in (root_dir / "summary.txt").read_text()
    assert (root_dir / "checkpoints" / "operative_config.gin").exists()
    assert tf.saved_model.contains_saved_model(root_dir / "policy")
    for task in (0, 1):
        assert list((root_dir / f"parameters-{task}" / "checkpoints").glob("checkpoint-*.index"))
    roles = ("parameter_server-0", "parameter_server-1", "coordinator-0", "evaluator-0")
    for role in (*roles, "worker-0", "worker-1"):
        assert list((root_dir / "tensorboard" / role).glob("events.*")), role


@pytest.mark.slow
def test_continues_in_the_same_directory(root_dir):
    finish(DATA / "gorila_catch.gin", root_dir)
    before = _result(root_dir)
    bindings = (
        "experiment.solved_return = 2.0",
        f"experiment.max_frames = {before['frames'] + 20_000}",
    )
    flags = [f"--gin_bindings={binding}" for binding in bindings]
    _, statuses = _run(DATA / "gorila_catch.gin", root_dir, "--allow_config_change", *flags)
    after = _result(root_dir)
    assert after["reason"].startswith("reached max_frames")
    assert after["frames"] > before["frames"]
    assert after["learner_steps"] > before["learner_steps"]
    assert all(status.frames >= before["frames"] for status in statuses)


@pytest.mark.slow
def test_solves_catch_with_a_global_replay_although_a_learner_and_an_actor_are_killed(tmp_path):
    kills = (("learner", 0), ("actor", 1))
    output, statuses = _run(DATA / "gorila_global_catch.gin", tmp_path / "run", kills=kills)
    _check_solved(tmp_path / "run", output, statuses)
    learners = {
        role.task: role.metrics
        for status in statuses
        for role in status.roles
        if role.role == "learner" and "learner/policy_lag" in role.metrics
    }
    assert all(learners[task]["worker/gradients"] > 0 for task in (0, 1))
    assert all(learners[task]["learner/policy_lag"] >= 0 for task in (0, 1))
