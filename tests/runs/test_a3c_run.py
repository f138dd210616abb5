"""A3C with every role as a real process: it learns, though a worker and a server are killed."""

import json
import os
import signal

import pytest
import tensorflow as tf
from local_runs import Run, finish
from paths import DATA

_GIN = DATA / "a3c_catch.gin"
_STEPS_PER_GRADIENT = 9 * 8  # t_max steps of each environment of a worker


@pytest.fixture(scope="module")
def root_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("a3c") / "run"


def _gradients(status):
    """Gradients of each start of each worker."""
    return {
        (role.task, role.run_id): role.metrics["worker/gradients"]
        for role in status.roles
        if role.role == "worker" and "worker/gradients" in role.metrics
    }


def _solve(root_dir, *bindings):
    """Runs to the end; returns its result, its output and all statuses."""
    run = Run(_GIN, root_dir, *(f"--gin_bindings={binding}" for binding in bindings))
    statuses, output = run.to_its_end()
    assert "solved: mean return" in output
    result = json.loads((root_dir / "result.json").read_text())
    assert result["evaluation"]["mean"] >= 0.95
    return result, output, statuses


def test_solves_catch_although_a_worker_and_a_server_are_killed(root_dir):
    run = Run(_GIN, root_dir)
    try:
        killed, statuses, gradients = None, [], {}
        for status in run.statuses():
            statuses.append(status)
            gradients.update(_gradients(status))
            if killed is None and status.learner_step > 20 and len(gradients) == 2:
                killed = status
                for role, task in (("worker", 0), ("parameter_server", 1)):
                    (pid,) = run.processes(f"--role={role}", f"--task={task}")
                    os.kill(pid, signal.SIGKILL)
        output = run.output
        assert run.popen.returncode == 0, output
        assert not run.processes()
    finally:
        run.kill()
    for name in ("worker 0", "parameter_server 1"):
        assert f"{name} died (killed by SIGKILL); starting it again" in output
    assert "solved: mean return" in output
    result = json.loads((root_dir / "result.json").read_text())
    assert result["evaluation"]["mean"] >= 0.95
    assert result["learner_steps"] > killed.learner_step + 20

    for name in ("frames", "learner_step", "version"):
        counts = [getattr(status, name) for status in statuses]
        assert counts == sorted(counts), name
    # Every frame is in one gradient; of some, a worker's last report does not tell.
    # An episode is nine steps; the tenth row of a rollout is a reset, which is no frame.
    learnt_frames = 0.9 * _STEPS_PER_GRADIENT * sum(gradients.values())
    assert 0.5 * result["frames"] < learnt_frames <= result["frames"]
    metrics = statuses[-1].metrics
    assert metrics["gradients/accepted"] > 0.5 * result["learner_steps"]
    assert metrics["gradients/non_finite"] == 0
    assert 0 <= metrics["gradients/age"] < 10


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
    finish(_GIN, root_dir)
    before = json.loads((root_dir / "result.json").read_text())
    bindings = (
        "experiment.solved_return = 2.0",
        f"experiment.max_frames = {before['frames'] + 20_000}",
    )
    flags = [f"--gin_bindings={binding}" for binding in bindings]
    run = Run(_GIN, root_dir, "--allow_config_change", *flags)
    statuses, _ = run.to_its_end()
    result = json.loads((root_dir / "result.json").read_text())
    assert result["reason"].startswith("reached max_frames")
    assert result["frames"] > before["frames"]
    assert result["learner_steps"] > before["learner_steps"]
    assert all(status.frames >= before["frames"] for status in statuses)
    for task in (0, 1):
        log = (root_dir / "logs" / f"parameter_server-{task}.log").read_text()
        assert "continuing from version" in log.rpartition("====")[2]


@pytest.mark.slow
def test_solves_catch_as_threads_of_one_process(tmp_path):
    result, output, statuses = _solve(
        tmp_path / "run", "a3c.threads = True", "a3c.parameter_servers = 1"
    )
    assert "1 coordinator at" in output and "worker" not in output.partition("watch it")[0]
    assert {role.role for role in statuses[-1].roles} >= {"worker", "evaluator"}
    assert {task for task, _ in _gradients(statuses[-1])} == {0, 1}
    assert result["frames"] > 0
    assert list((tmp_path / "run" / "parameters-0" / "checkpoints").glob("checkpoint-*.index"))


@pytest.mark.slow
def test_solves_catch_with_synchronous_workers(tmp_path):
    _, _, statuses = _solve(tmp_path / "run", "a3c.synchronous = True", "a3c.parameter_servers = 1")
    (one,), (two,) = (
        [n for (task, _), n in _gradients(statuses[-1]).items() if task == t] for t in (0, 1)
    )
    assert abs(one - two) < 0.2 * max(one, two)  # of one second's reports
    assert statuses[-1].metrics["gradients/age"] == 0
