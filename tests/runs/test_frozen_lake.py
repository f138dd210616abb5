"""A state that is a number is learnt from as what it is: the name of a place."""

import json

import gin
import pytest

from tfdrl import configuration
from tfdrl.architectures import dqn
from tfdrl.experiment import Experiment
from tfdrl.launch.local import addresses
from tfdrl.topology import Address, Context

_BINDINGS = [
    "gym_environment.id = 'FrozenLake-v1'",
    "gym_environment.kwargs = {'is_slippery': False}",
    "experiment.solved_return = 1.0",
    "experiment.max_frames = 20000",
    "experiment.evaluation_episodes = 20",
    "dqn.evaluation_period_steps = 5000",
    "dqn.min_replay_steps = 200",
    "dqn.batch_size = 16",
]


@pytest.mark.slow
def test_dqn_solves_frozen_lake(tmp_path):
    loaded = configuration.load(["dqn/cartpole.gin"], _BINDINGS, tensorflow=True)
    listen = Address("127.0.0.1", next(addresses.free_ports()))
    dqn.learner(
        Experiment.from_gin(),
        Context("learner", 0, 1, tmp_path, listen, experiment=loaded.digest),
    )
    gin.clear_config()
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["evaluation"]["mean"] == 1.0
