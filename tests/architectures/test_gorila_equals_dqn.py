"""Gorila with one bundle, and plain gradient descent at the parameter server, is DQN, bit for bit.

Both sides are the real ones: Gorila's `worker` against a parameter server and a training service
of this process, and the one process of DQN. They share nothing but the seed, and what each update
leaves in the networks is compared.
"""

import functools

import numpy as np
import pytest
from running_roles import free_port

from tfdrl.agents import optimizers
from tfdrl.agents.n_step_dqn import NStepDqnAgent
from tfdrl.architectures import dqn, gorila
from tfdrl.environments import gym_environment
from tfdrl.experiment import Experiment
from tfdrl.learning.one_process import OneProcess
from tfdrl.networks.q_networks import MlpQNetwork
from tfdrl.parameter_server import transition_learning
from tfdrl.parameter_server.role import ShardServer
from tfdrl.parameter_server.settings import ParameterServerSettings
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.topology import Address, Context

UPDATES, TARGET_PERIOD_UPDATES = 80, 15
# Discount and learning rate are powers of 2, whose products are exact: TensorFlow orders them
# differently in the two graphs.
SHARED = {
    "environment": functools.partial(gym_environment, id="CartPole-v1"),
    "gamma": 0.5,
    "n_step": 3,
    "replay_capacity_steps": 200,  # it wraps around on the way
    "min_replay_steps": 50,
    "batch_size": 16,
    "update_period_steps": 4,
    "epsilon_start": 0.2,
    "epsilon_end": 0.2,
}
LEARNING_RATE = 1 / 16


def agent(**arguments):
    return functools.partial(
        NStepDqnAgent,
        network=functools.partial(MlpQNetwork, layer_units=(16,), dueling=True),
        gamma=SHARED["gamma"],
        gradient_clip_norm=1.0,
        **arguments,
    )


class Recorder:
    """What the networks of an agent hold after each update; ends the run after the last."""

    def __init__(self, context):
        self.context, self.networks = context, []

    def add(self, of_agent):
        variables = (*of_agent.q_network.variables, *of_agent.target_q_network.variables)
        self.networks.append([variable.numpy() for variable in variables])
        if len(self.networks) == UPDATES:
            self.context.stop.set()


def dqn_networks(root_dir, monkeypatch):
    context = Context("learner", 0, 1, root_dir, Address("127.0.0.1", free_port()))
    config = dqn.Dqn(
        agent=agent(
            optimizer=optimizers.sgd(LEARNING_RATE),
            target_update_period_steps=TARGET_PERIOD_UPDATES,
        ),
        **SHARED,
    )
    recorder, count_update = Recorder(context), OneProcess.count_update

    def recorded(run, loss):
        count_update(run, loss)
        if not context.stop.is_set():
            recorder.add(run.agent)

    monkeypatch.setattr(OneProcess, "count_update", recorded)
    dqn.learner(Experiment(config), context)
    return recorder.networks


def gorila_networks(root_dir, monkeypatch):
    config = gorila.Gorila(
        agent=agent(optimizer=None, target_update_period_steps=7),  # of no matter: nobody trains
        parameter_server=ParameterServerSettings(rule="sgd", learning_rate=LEARNING_RATE),
        workers=1,
        target_period_updates=TARGET_PERIOD_UPDATES,
        outlier_num_std=None,
        **SHARED,
    )
    experiment, address = Experiment(config), Address("127.0.0.1", free_port())
    served = ShardServer(
        gorila.make_learner(experiment).variables,
        config.parameter_server,
        Context("parameter_server", 0, 1, root_dir, address, experiment="x"),
    )
    service = TrainingServer(Address("127.0.0.1", 0), "x")
    context = Context("worker", 0, 1, root_dir, experiment="x")
    recorder, learn = Recorder(context), transition_learning.GradientLearner.learn

    def recorded(learner, *batch):
        if not context.stop.is_set():
            learn(learner, *batch)
            recorder.add(learner._target._agent)

    monkeypatch.setattr(transition_learning.GradientLearner, "learn", recorded)
    gorila.worker(experiment, context, address, service.address)
    assert served.shard.status()["verdicts"]["accepted"] == UPDATES
    service.close()
    served.close()
    return recorder.networks


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    with pytest.MonkeyPatch.context() as monkeypatch:
        return tuple(
            run(tmp_path_factory.mktemp(run.__name__), monkeypatch)
            for run in (gorila_networks, dqn_networks)
        )


def test_one_bundle_with_gradient_descent_is_dqn(networks):
    ours, theirs = networks
    assert len(ours) == len(theirs) == UPDATES
    for update, pair in enumerate(zip(ours, theirs), start=1):
        for mine, other in zip(*pair):
            np.testing.assert_array_equal(mine, other, err_msg=f"update {update}")


def test_the_comparison_saw_updates_and_target_copies(networks):
    """Or it would prove little."""
    ours, _ = networks
    half = len(ours[0]) // 2
    online, target = (
        np.stack([np.concatenate([v.ravel() for v in n[i : i + half]]) for n in ours])
        for i in (0, half)
    )
    changes = [
        update
        for update in range(2, UPDATES + 1)
        if not np.array_equal(target[update - 1], target[update - 2])
    ]
    assert changes == list(range(TARGET_PERIOD_UPDATES, UPDATES + 1, TARGET_PERIOD_UPDATES))
    for update in changes:
        np.testing.assert_array_equal(target[update - 1], online[update - 1])
    assert all(not np.array_equal(a, b) for a, b in zip(online[:-1], online[1:]))
