"""A3C with every role as a real process: it learns, though a worker and a server are killed."""

import pytest
from local_runs import (
    check_files,
    check_solved,
    continue_run,
    finish,
    have_reported,
    train,
)
from paths import DATA

_GIN = DATA / "a3c_catch.gin"
_STEPS_PER_GRADIENT = 9 * 8  # t_max steps of each environment of a worker


@pytest.fixture(scope="module")
def root_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("a3c") / "run"


# Quick: test_normalized_runs has A3C's own run, test_parameter_server_faults those that are killed.
@pytest.mark.slow
def test_solves_catch_although_a_worker_and_a_server_are_killed(root_dir):
    ended = train(
        *(_GIN, root_dir),
        kills=(("worker", 0), ("parameter_server", 1)),
        ready=have_reported("worker", 2, "worker/gradients"),
    )
    check_solved(ended)
    # Every frame is in one gradient; of some, a worker's last report does not tell.
    # An episode is nine steps; the tenth row of a rollout is a reset, which is no frame.
    gradients = ended.newest("worker", "worker/gradients")
    learnt_frames = 0.9 * _STEPS_PER_GRADIENT * sum(gradients.values())
    assert 0.5 * ended.result["frames"] < learnt_frames <= ended.result["frames"]
    assert ended.metrics["gradients/accepted"] > 0.5 * ended.result["learner_steps"]
    assert ended.metrics["gradients/non_finite"] == 0
    assert 0 <= ended.metrics["gradients/age"] < 10


@pytest.mark.slow
def test_leaves_summary_checkpoints_policy_and_events(root_dir):
    roles = ("parameter_server-0", "parameter_server-1", "coordinator-0", "evaluator-0")
    check_files(root_dir, *roles, "worker-0", "worker-1")
    for task in (0, 1):
        assert list((root_dir / f"parameters-{task}" / "checkpoints").glob("checkpoint-*.index"))


@pytest.mark.slow
def test_continues_in_the_same_directory(root_dir):
    frames = finish(_GIN, root_dir)["frames"]
    ended = continue_run(
        *(_GIN, root_dir, "experiment.solved_return = 2.0"),
        f"experiment.max_frames = {frames + 20_000}",
    )
    assert ended.result["reason"].startswith("reached max_frames")
    for task in (0, 1):
        log = (root_dir / "logs" / f"parameter_server-{task}.log").read_text()
        assert "continuing from version" in log.rpartition("====")[2]


@pytest.mark.slow
def test_solves_catch_as_threads_of_one_process(tmp_path):
    ended = train(_GIN, tmp_path / "run", "a3c.threads = True", "a3c.parameter_servers = 1")
    check_solved(ended)
    assert "1 coordinator at" in ended.output
    assert "worker" not in ended.output.partition("watch it")[0]
    assert {role.role for role in ended.statuses[-1].roles} >= {"worker", "evaluator"}
    assert {task for task, _ in ended.newest("worker", "worker/gradients")} == {0, 1}
    assert ended.result["frames"] > 0
    assert list((tmp_path / "run" / "parameters-0" / "checkpoints").glob("checkpoint-*.index"))


@pytest.mark.slow
def test_solves_catch_with_synchronous_workers(tmp_path):
    ended = train(_GIN, tmp_path / "run", "a3c.synchronous = True", "a3c.parameter_servers = 1")
    check_solved(ended)
    one, two = (
        role.metrics["worker/gradients"]
        for role in ended.statuses[-1].roles
        if role.role == "worker"
    )
    assert abs(one - two) < 0.2 * max(one, two)  # of one second's reports
    assert ended.metrics["gradients/age"] == 0
