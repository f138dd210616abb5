"""Runs that only learn by running statistics, shared by all who learn, act, evaluate and export."""

import dataclasses
import json
import threading

import gin
import numpy as np
import pytest
import scaled_environments
import tensorflow as tf
from local_runs import check_solved, train
from paths import DATA
from tf_agents.trajectories import time_step as ts

from tfdrl import configuration
from tfdrl.architectures import a3c
from tfdrl.experiment import Experiment
from tfdrl.launch.local import addresses
from tfdrl.topology import Address, Context

LINES = (
    "gym_environment.id = 'scaled_environments:Scales-v0'",
    "normalization.observations = True",
    "experiment.solved_return = 4.0",
    "experiment.evaluation_episodes = 50",
)


def check_policy(directory):
    """What was exported is given observations as the environment has them, and has seen many."""
    policy = tf.saved_model.load(str(directory))
    observation, right = scaled_environments.draw(np.random.default_rng(7), 500)
    step = policy.action(ts.restart(tf.constant(observation), 500), policy.get_initial_state(500))
    assert np.mean(step.action == right) > 0.95
    (sums,) = (v.numpy() for v in policy.model_variables if v.dtype == tf.float64)
    count, mean = sums[0], sums[1:3] / sums[0]
    assert count >= 64  # one batch of A3C's: one update may be enough to solve it
    std = np.sqrt(sums[3:] / count - mean**2)
    np.testing.assert_allclose(std, [1e4, 1.04e-4], rtol=max(0.1, 4 / np.sqrt(count)))


def test_a3c_learns_it_with_workers_that_each_see_their_part(tmp_path):
    """Two workers by their own gradients, evaluated by a role that counts nothing."""
    bindings = [
        *LINES,
        "a3c.parameter_servers = 1",
        "a3c.threads = True",
        "a3c.evaluation_period_secs = 0.5",
        "a3c.t_max = 8",
        "parameter_server.learning_rate = 1e-2",
    ]
    loaded = configuration.load([str(DATA / "a3c_catch.gin")], bindings, tensorflow=True)
    experiment = Experiment.from_gin()
    listen = Address("127.0.0.1", next(addresses.free_ports()))
    mine = Context("coordinator", 0, 1, tmp_path, listen, experiment=loaded.digest)
    other = dataclasses.replace(mine, role="evaluator", listen=None)
    evaluating = threading.Thread(target=a3c.evaluator, args=(experiment, other, listen))
    evaluating.daemon = True
    evaluating.start()
    try:
        a3c.threads(experiment, mine)
    finally:
        other.stop.set()
        evaluating.join(20.0)
        gin.clear_config()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["reason"].startswith("solved") and result["evaluation"]["mean"] == 4.0
    check_policy(tmp_path / "policy")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("a3c", ()),
        ("gorila", ()),
        ("impala", ()),
        ("impala", ("impala.learners = 2", "strategy.kind = 'multi_worker'")),
        ("apex", ()),
        ("seed", ()),
    ],
)
def test_every_kind_of_run_learns_it(name, more, tmp_path):
    ended = train(DATA / f"{name}_catch.gin", tmp_path / "run", *LINES, *more)
    check_solved(ended, mean=4.0)
    check_policy(tmp_path / "run" / "policy")
