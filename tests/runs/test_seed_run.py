"""SEED RL with every role as a real process: it learns, though an actor is killed."""

import contextlib
import pathlib

import pytest
from local_runs import check_files, check_solved, train
from paths import DATA


@pytest.fixture(scope="module")
def root_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("seed") / "run"


def _actors(status):
    return {role.task for role in status.roles if role.role == "actor"}


def test_solves_catch_although_an_actor_is_killed(root_dir):
    maps = []

    def look(run, status):
        """What an actor has mapped, while it acts."""
        if _actors(status) == {0, 1} and status.learner_step > 50:
            for pid in run.processes("--role=actor", "--task=0"):
                with contextlib.suppress(OSError):  # it is over
                    maps.append(pathlib.Path(f"/proc/{pid}/maps").read_text())

    ended = train(
        *(DATA / "seed_catch.gin", root_dir),
        kills=[("actor", 0)],
        ready=lambda status: status.learner_step > 50 and _actors(status) == {0, 1},
        look=look,
    )
    check_solved(ended)
    assert "grpc" in maps[0] and not any("tensorflow" in found for found in maps)

    # Every unroll is learnt from once. A second of each actor may be uncounted; some unrolls wait.
    learnt_frames = ended.result["learner_steps"] * 8 * 16
    assert 0.7 * learnt_frames < ended.result["frames"] < 1.3 * learnt_frames + 5000

    metrics = ended.metrics
    assert 0 <= metrics["learner/policy_lag"] < 10
    assert metrics["inference/batch_rows"] >= 8
    assert metrics["inference/p99_ms"] >= metrics["inference/p50_ms"] > 0
    assert _actors(ended.statuses[-1]) == {0, 1}


def test_leaves_summary_checkpoint_policy_and_events(root_dir):
    check_files(root_dir, "learner-0", "evaluator-0")
    for task in (0, 1):
        assert "stopped: solved" in (root_dir / "logs" / f"actor-{task}.log").read_text()
