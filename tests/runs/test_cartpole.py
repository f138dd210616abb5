"""CartPole-v1 is solved by every architecture, with three seeds of three, under eight minutes."""

import json
import subprocess
import sys

import pytest

LIMIT_SECS = 480.0


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_SECS + 120)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    "gin_file",
    [
        *("dqn/cartpole.gin", "apex/cartpole.gin", "impala/cartpole.gin"),
        *("seed/cartpole_vtrace.gin", "gorila/cartpole.gin", "gorila/cartpole_global.gin"),
        *("a3c/cartpole.gin", "a3c/cartpole.gin a3c.workers = 4"),
    ],
)
def test_cartpole_is_solved(gin_file, seed, tmp_path, record_property):
    name, _, more = gin_file.partition(" ")
    command = [
        *(sys.executable, "-m", "binaries.train", f"--gin_file={name}"),
        *([f"--gin_bindings={more}"] if more else []),
        *(f"--root_dir={tmp_path}", f"--gin_bindings=experiment.seed = {seed}"),
    ]
    run = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_SECS + 60)
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]
    result = json.loads((tmp_path / "result.json").read_text())
    print(f"\n{gin_file} seed {seed}: {result['training_secs']:.0f} s, {result['frames']} frames")
    assert result["reason"].startswith("solved")
    assert result["evaluation"]["mean"] >= 475.0
    assert result["evaluation"]["episodes"] >= 100
    assert result["training_secs"] < LIMIT_SECS
