"""CartPole-v1 is solved by every architecture, with three seeds of three, under eight minutes.

A policy that has solved it stays as it is when training goes on.
"""

import gin
import numpy as np
import pytest
import tensorflow as tf
from local_runs import check_solved, train

from tfdrl import configuration
from tfdrl.launch import curves

LIMIT_SECS = 480.0
TARGET = 475.0


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
    check_solved(ended, mean=TARGET)
    result = ended.result
    print(f"\n{gin_file} seed {seed}: {result['training_secs']:.0f} s, {result['frames']} frames")
    assert result["evaluation"]["episodes"] >= 100
    assert result["training_secs"] < LIMIT_SECS


@pytest.mark.slow
@pytest.mark.timeout(1500)
@pytest.mark.parametrize("gin_file", ["impala/cartpole.gin", "seed/cartpole_vtrace.gin"])
def test_a_policy_that_has_solved_it_is_not_lost_again(gin_file, tmp_path):
    """Its rate has fallen to 0 after 5,000 learner steps, which are 800,000 frames."""
    bindings = [
        *("experiment.seed = 1", "linear_schedule.steps = 5000"),
        *("experiment.solved_return = None", "experiment.max_frames = 1000000"),
        "experiment.max_minutes = 20.0",
    ]
    train(gin_file, tmp_path / "run", *bindings, limit_secs=1400)
    rows = curves.read(tmp_path / "run")
    late = [row["mean"] for row in rows if row["frames"] > 850_000]
    assert late and min(late) >= TARGET, late


@pytest.mark.parametrize("gin_file", ["impala/cartpole.gin", "seed/cartpole_vtrace.gin"])
def test_small_gradients_move_a_policy_little(gin_file):
    """Once it is solved, gradients have norms of 0.01 to 0.1, and are noise."""
    configuration.load([gin_file], [], tensorflow=True)
    optimizer = gin.query_parameter("VTraceAgent.optimizer").scoped_configurable_fn()
    gin.clear_config()
    variable = tf.Variable(tf.zeros(4_600))
    random = np.random.default_rng(0)

    def moved(norm, steps):
        """By the last of so many steps."""
        for _ in range(steps):
            gradient = random.normal(size=4_600)
            gradient *= norm / np.linalg.norm(gradient)
            before = variable.numpy()
            optimizer.apply_gradients([(tf.constant(gradient, tf.float32), variable)])
        return np.linalg.norm(variable.numpy() - before)

    learning, solved = moved(1.0, steps=20), moved(0.05, steps=500)
    assert solved < 0.1 * learning
