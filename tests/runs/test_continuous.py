"""Pendulum-v1 (mean of 100 evaluations at -200 or better), and TF-Agents' agents unchanged."""

import json
import subprocess
import sys

import pytest

LIMIT_SECS = 600.0


def _solve(gin_file, seed, root_dir):
    command = [sys.executable, "-m", "binaries.train", f"--gin_file={gin_file}"]
    command += [f"--root_dir={root_dir}", f"--gin_bindings=experiment.seed = {seed}"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECS + 90)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    result = json.loads((root_dir / "result.json").read_text())
    print(f"\n{gin_file} seed {seed}: {result['training_secs']:.0f} s, {result['frames']} frames")
    assert result["reason"].startswith("solved"), result
    assert result["evaluation"]["episodes"] >= 100
    assert result["training_secs"] < LIMIT_SECS
    return result["evaluation"]["mean"]


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_SECS + 120)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("gin_file", ["apex_dpg/pendulum.gin", "impala/pendulum.gin"])
def test_pendulum_is_solved(gin_file, seed, tmp_path):
    assert _solve(gin_file, seed, tmp_path) >= -200.0


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_SECS + 120)
@pytest.mark.parametrize("gin_file", ["apex/sac_pendulum.gin", "apex/td3_pendulum.gin"])
def test_agents_of_tf_agents_solve_pendulum(gin_file, tmp_path):
    assert _solve(gin_file, 1, tmp_path) >= -200.0


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_SECS + 120)
def test_ppo_of_tf_agents_solves_cartpole(tmp_path):
    assert _solve("impala/ppo_cartpole.gin", 1, tmp_path) >= 475.0
