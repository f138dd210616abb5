"""IMPALA with every role as a real process: it learns, though an actor is killed."""

import pytest
from local_runs import check_files, check_solved, have_reported, train
from paths import DATA

_UNROLL_STEPS, _FRESH = 16, 4


@pytest.fixture(scope="module")
def root_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("impala") / "run"


def test_solves_catch_although_an_actor_is_killed(root_dir):
    ended = train(
        *(DATA / "impala_catch.gin", root_dir),
        kills=[("actor", 0)],
        ready=have_reported("actor", 2, "actor/unrolls"),
    )
    check_solved(ended)
    # Every unroll is learnt from once as a fresh one; some wait in the queue or are being acted.
    # What the killed actor had not reported yet, up to a second of it, is in no count.
    # An episode is nine steps; the tenth row of an unroll is a reset, which is no frame.
    learnt_frames = 0.9 * ended.result["learner_steps"] * _FRESH * _UNROLL_STEPS
    assert learnt_frames <= ended.result["frames"] + 2 * 1500
    assert learnt_frames > 0.8 * ended.result["frames"]

    metrics = ended.metrics
    assert 0 <= metrics["learner/policy_lag"] < 30
    assert metrics["learner/replayed_policy_lag"] > metrics["learner/policy_lag"]
    assert metrics["learner/log_rho"] > 0.0


def test_leaves_summary_checkpoint_policy_and_events(root_dir):
    check_files(root_dir, "learner-0", "replay-0", "actor-0", "actor-1", "evaluator-0")
