"""Gorila with every role as a real process: it learns, though a worker and a server are killed."""

import pytest
from local_runs import check_files, check_solved, continue_run, finish, train
from paths import DATA

_GIN = DATA / "gorila_catch.gin"


@pytest.fixture(scope="module")
def root_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("gorila") / "run"


def _check_solved(ended):
    check_solved(ended)
    assert ended.metrics["gradients/accepted"] > 0.5 * ended.result["learner_steps"]
    assert ended.metrics["gradients/non_finite"] == 0
    assert 0 <= ended.metrics["gradients/age"] <= 20  # parameter_server.max_gradient_age


def test_solves_catch_although_a_worker_and_a_server_are_killed(root_dir):
    _check_solved(train(_GIN, root_dir, kills=[("worker", 0), ("parameter_server", 1)]))


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


@pytest.mark.slow
def test_solves_catch_with_a_global_replay_although_a_learner_and_an_actor_are_killed(tmp_path):
    kills = [("learner", 0), ("actor", 1)]
    ended = train(DATA / "gorila_global_catch.gin", tmp_path / "run", kills=kills)
    _check_solved(ended)
    learners = {
        role.task: role.metrics
        for status in ended.statuses
        for role in status.roles
        if role.role == "learner" and "learner/policy_lag" in role.metrics
    }
    assert all(learners[task]["worker/gradients"] > 0 for task in (0, 1))
    assert all(learners[task]["learner/policy_lag"] >= 0 for task in (0, 1))
