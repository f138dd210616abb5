"""A memory task is solved by an LSTM and not by the feed-forward network."""

import pytest
from local_runs import train

_FEED_FORWARD_LIMIT = 0.2  # what a policy without memory can reach: see environments/toys.py


def _run(root_dir, *bindings, gin_file="impala/catch_memory.gin"):
    result = train(gin_file, root_dir / "run", *bindings, limit_secs=400.0).result
    print(f"\n{bindings}: {result['training_secs']:.0f} s, {result['frames']} frames, {result}")
    return result


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_an_lstm_solves_it(seed, tmp_path):
    result = _run(tmp_path, f"experiment.seed = {seed}")
    assert result["reason"].startswith("solved") and result["evaluation"]["mean"] >= 0.95


@pytest.mark.slow
def test_a_feed_forward_network_does_not(tmp_path):
    result = _run(
        tmp_path, "MlpActorCriticNetwork.lstm_units = None", "experiment.max_frames = 2_000_000"
    )
    assert result["reason"].startswith("reached max_frames")
    # 100 episodes of +1 or -1 have a standard error of 0.1, and the best of several counts.
    assert result["best_return"] < _FEED_FORWARD_LIMIT + 0.4


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a3c_with_an_lstm_solves_it(seed, tmp_path):
    gin_file = "a3c/catch_memory.gin"
    result = _run(tmp_path, f"experiment.seed = {seed}", gin_file=gin_file)
    assert result["reason"].startswith("solved") and result["evaluation"]["mean"] >= 0.95


_R2D2 = "seed/catch_memory_r2d2.gin"


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_r2d2_with_inference_in_the_actors_solves_it(seed, tmp_path):
    result = _run(tmp_path, f"experiment.seed = {seed}", gin_file="r2d2/catch_memory.gin")
    assert result["reason"].startswith("solved") and result["evaluation"]["mean"] >= 0.95


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_r2d2_solves_it(seed, tmp_path):
    result = _run(tmp_path, f"experiment.seed = {seed}", gin_file=_R2D2)
    assert result["reason"].startswith("solved") and result["evaluation"]["mean"] >= 0.95


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_r2d2_without_recurrence_does_not(tmp_path):
    bindings = [
        "MlpRecurrentQNetwork.lstm_units = None",
        "R2D2Agent.initial_state = 'zero'",
        "experiment.max_frames = 1_500_000",
    ]
    result = _run(tmp_path, *bindings, gin_file=_R2D2)
    assert result["reason"].startswith("reached max_frames")
    assert result["best_return"] < _FEED_FORWARD_LIMIT + 0.4
