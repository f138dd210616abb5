"""Pendulum-v1 (mean of 100 evaluations at -200 or better), and TF-Agents' agents unchanged."""

import pytest
from local_runs import check_solved, train

LIMIT_SECS = 600.0


def _solve(gin_file, seed, root_dir, mean):
    bindings = f"experiment.seed = {seed}"
    ended = train(gin_file, root_dir, bindings, limit_secs=LIMIT_SECS + 90)
    check_solved(ended, mean)
    result = ended.result
    print(f"\n{gin_file} seed {seed}: {result['training_secs']:.0f} s, {result['frames']} frames")
    assert result["evaluation"]["episodes"] >= 100
    assert result["training_secs"] < LIMIT_SECS


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_SECS + 120)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("gin_file", ["apex_dpg/pendulum.gin", "impala/pendulum.gin"])
def test_pendulum_is_solved(gin_file, seed, tmp_path):
    _solve(gin_file, seed, tmp_path / "run", mean=-200.0)


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_SECS + 120)
@pytest.mark.parametrize("gin_file", ["apex/sac_pendulum.gin", "apex/td3_pendulum.gin"])
def test_agents_of_tf_agents_solve_pendulum(gin_file, tmp_path):
    _solve(gin_file, 1, tmp_path / "run", mean=-200.0)


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_SECS + 120)
def test_ppo_of_tf_agents_solves_cartpole(tmp_path):
    _solve("impala/ppo_cartpole.gin", 1, tmp_path / "run", mean=475.0)
