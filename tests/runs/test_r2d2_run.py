"""R2D2 in actors and under SEED, all roles real processes: it learns, in its ratio, and goes on.

In the actors' kind an actor is killed on the way.
"""

import pytest
from local_runs import check_solved, continue_run, finish, train
from paths import DATA

_GIN, _SEED_GIN = DATA / "r2d2_catch.gin", DATA / "seed_r2d2_catch.gin"
_RATIO, _BATCH, _STEPS = 2.0, 16, 12


@pytest.fixture(scope="module")
def root_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("r2d2") / "run"


@pytest.fixture(scope="module")
def seed_root_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("seed_r2d2") / "run"


def _check_learnt(ended, lowest, highest):
    check_solved(ended)
    # Sequences that were trained on, over those that were acted: the last ones still wait.
    found = ended.result["learner_steps"] * _BATCH / (ended.result["frames"] / _STEPS)
    assert lowest * _RATIO < found < highest * _RATIO
    assert ended.metrics["replay/size"] > 64 and ended.metrics["learner/bad_priorities"] == 0
    assert ended.metrics["learner/td_error"] > 0


def _check_continues_with_its_replay(gin_file, root_dir, setting):
    """Though sequences are cut in another way from now on: to the learner they are alike."""
    before = finish(gin_file, root_dir)["learner_steps"]
    ended = continue_run(
        *(gin_file, root_dir, "experiment.solved_return = None"),
        *(f"experiment.max_learner_steps = {before + 20}", setting),
    )
    assert ended.result["learner_steps"] >= before + 20
    sizes = [status.metrics.get("replay/size") for status in ended.statuses]
    assert next(size for size in sizes if size) > 64  # it did not begin with an empty replay
    log = (root_dir / "logs" / "learner-0.log").read_text()
    assert f"continuing from learner step {before}" in log


def test_solves_catch_in_its_ratio_although_an_actor_is_killed(root_dir):
    ended = train(_GIN, root_dir, kills=[("actor", 0)])
    _check_learnt(ended, 0.5, 1.2)
    actors = [role for role in ended.statuses[-1].roles if role.role == "actor" and role.metrics]
    assert any(role.metrics["actor/sequences"] > 8 for role in actors)


@pytest.mark.slow
def test_continues_with_its_replay(root_dir):
    _check_continues_with_its_replay(_GIN, root_dir, "r2d2.sequences_within_episodes = True")


@pytest.mark.slow
def test_seed_solves_catch_and_trains_on_each_sequence_as_often_as_is_set(seed_root_dir):
    ended = train(_SEED_GIN, seed_root_dir)
    _check_learnt(ended, 0.6, 1.1)
    assert ended.metrics["inference/p99_ms"] > 0


@pytest.mark.slow
def test_seed_continues_with_its_replay(seed_root_dir):
    setting = "seed.sequences_within_episodes = True"
    _check_continues_with_its_replay(_SEED_GIN, seed_root_dir, setting)
