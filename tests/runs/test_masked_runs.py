"""Every architecture learns an environment that raises at the first forbidden action."""

import json

import gin
import pytest
import tensorflow as tf
from local_runs import check_solved, train
from paths import DATA

from tfdrl import configuration
from tfdrl.architectures import dqn
from tfdrl.experiment import Experiment
from tfdrl.launch.local import addresses
from tfdrl.topology import Address, Context

DOORS = [
    "gym_environment.id = 'tfdrl/Doors-v0'",
    "gym_environment.action_mask = 'action_mask'",
    "experiment.solved_return = 2.0",
    "experiment.evaluation_episodes = 20",
]
IN_OBSERVATION, IN_INFO = (
    f"gym_environment.kwargs = {{'rooms': 2, 'doors': 3, 'mask_in_info': {is_there}}}"
    for is_there in (False, True)
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("apex", IN_OBSERVATION),
        ("r2d2", IN_INFO),
        ("impala", IN_INFO),
        ("seed", IN_OBSERVATION),
        ("seed_r2d2", IN_INFO),
        ("a3c", IN_OBSERVATION),
        ("gorila", IN_OBSERVATION),
    ],
)
def test_learns_to_take_the_best_of_what_is_allowed(name, where, tmp_path):
    ended = train(DATA / f"{name}_catch.gin", tmp_path / "run", *DOORS, where)
    check_solved(ended, mean=2.0)


def test_dqn_learns_it_in_seconds(tmp_path):
    """And leaves a policy that plays by the rules: its evaluation did."""
    bindings = [
        *DOORS,
        IN_INFO,
        "dqn.evaluation_period_steps = 400",
        "dqn.epsilon_decay_steps = 1000",
        "adam.learning_rate = 1e-2",
    ]
    loaded = configuration.load([str(DATA / "dqn_catch.gin")], bindings, tensorflow=True)
    listen = Address("127.0.0.1", next(addresses.free_ports()))
    try:
        context = Context("learner", 0, 1, tmp_path, listen, experiment=loaded.digest)
        dqn.learner(Experiment.from_gin(), context)
    finally:
        gin.clear_config()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["reason"].startswith("solved") and result["evaluation"]["mean"] == 2.0
    assert tf.saved_model.contains_saved_model(tmp_path / "policy")
