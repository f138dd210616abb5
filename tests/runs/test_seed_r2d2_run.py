"""SEED RL with R2D2, every role a real process: it learns, holds its ratio and continues."""

import json

import pytest
from local_runs import Run, finish
from paths import DATA

_GIN = DATA / "seed_r2d2_catch.gin"
_RATIO, _BATCH, _STEPS = 2.0, 16, 12


@pytest.fixture(scope="module")
def root_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("seed_r2d2") / "run"


@pytest.mark.slow
def test_solves_catch_and_trains_on_each_sequence_as_often_as_is_set(root_dir):
    run = Run(_GIN, root_dir)
    statuses, output = run.to_its_end()
    assert "solved: mean return" in output
    result = json.loads((root_dir / "result.json").read_text())
    assert result["evaluation"]["mean"] >= 0.95
    # Sequences that were trained on, over those that were acted: the last ones still wait.
    sequences = result["frames"] / _STEPS
    found = result["learner_steps"] * _BATCH / sequences
    assert 0.6 * _RATIO < found < 1.1 * _RATIO
    metrics = statuses[-1].metrics
    assert metrics["replay/size"] > 64 and metrics["learner/bad_priorities"] == 0
    assert metrics["learner/td_error"] > 0
    assert metrics["inference/p99_ms"] > 0


@pytest.mark.slow
def test_continues_with_its_replay(root_dir):
    finish(_GIN, root_dir)
    before = json.loads((root_dir / "result.json").read_text())
    steps = before["learner_steps"] + 20
    run = Run(
        *(_GIN, root_dir, "--allow_config_change"),
        "--gin_bindings=experiment.solved_return = None",
        f"--gin_bindings=experiment.max_learner_steps = {steps}",
    )
    statuses, _ = run.to_its_end()
    sizes = [status.metrics.get("replay/size") for status in statuses]
    after = json.loads((root_dir / "result.json").read_text())
    assert after["learner_steps"] >= steps and after["frames"] > before["frames"]
    assert next(size for size in sizes if size) > 64  # it did not begin with an empty replay
    log = (root_dir / "logs" / "learner-0.log").read_text()
    assert f"continuing from learner step {before['learner_steps']}" in log
