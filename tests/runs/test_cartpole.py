"""CartPole-v1 is solved by every architecture, with three seeds of three, under eight minutes."""

import pytest
from local_runs import check_solved, train

LIMIT_SECS = 480.0


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_SECS + 120)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(
    "gin_file",
    [
        *("dqn/cartpole.gin", "apex/cartpole.gin", "impala/cartpole.gin"),
        *("seed/cartpole_vtrace.gin", "gorila/cartpole.gin", "gorila/cartpole_global.gin"),
        *("a3c/cartpole.gin", "a3c/cartpole.gin a3c.workers = 4", "a3c/cartpole_sarsa.gin"),
    ],
)
def test_cartpole_is_solved(gin_file, seed, tmp_path, record_property):
    name, _, more = gin_file.partition(" ")
    bindings = [f"experiment.seed = {seed}", *([more] if more else [])]
    ended = train(name, tmp_path / "run", *bindings, limit_secs=LIMIT_SECS + 60)
    check_solved(ended, mean=475.0)
    result = ended.result
    print(f"\n{gin_file} seed {seed}: {result['training_secs']:.0f} s, {result['frames']} frames")
    assert result["evaluation"]["episodes"] >= 100
    assert result["training_secs"] < LIMIT_SECS
