"""A one-process run that is started again goes on exploring as little as before."""

import functools
import socket

import gin
import numpy as np
import pytest

from tfdrl.agents import optimizers
from tfdrl.agents.n_step_dqn import NStepDqnAgent
from tfdrl.architectures.dqn import Dqn
from tfdrl.environments import gym_environment
from tfdrl.experiment import Experiment
from tfdrl.learning.one_process import OneProcess
from tfdrl.networks.q_networks import MlpQNetwork
from tfdrl.topology import Address, Context


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def start(tmp_path):
    """Starts (again) in one directory; epsilon goes from 1 to 0.25 in 100 agent steps."""
    config = Dqn(
        environment=functools.partial(gym_environment, id="tfdrl/Chain-v0"),
        agent=functools.partial(NStepDqnAgent, network=MlpQNetwork, optimizer=optimizers.sgd()),
        environments=8,
        min_replay_steps=16,
        replay_capacity_steps=1000,
        epsilon_end=0.25,
        epsilon_decay_steps=100,
    )

    def run():
        context = Context("learner", 0, 1, tmp_path, Address("127.0.0.1", free_port()))
        return OneProcess(Experiment(config), context)

    return run


def epsilon_of(run):
    return run._policy._epsilon.numpy()


def test_exploration_is_annealed_and_stays_so_after_a_restart(start):
    with start() as run:
        for _ in range(40):
            before = run.steps
            run.act_and_store()
            expected = max(1 - 0.75 * before / 100, 0.25)
            np.testing.assert_allclose(epsilon_of(run), np.full(8, expected), rtol=1e-6)
        stored, steps = run.replay.size_steps, run.steps
    assert stored == 320 and 250 < steps < 320  # a reset is stored, and is no step
    with start() as run:
        assert run.steps == steps
        assert run.replay.size_steps == 320 + 8  # the step at which the episodes were cut off
        run.act_and_store()
        np.testing.assert_allclose(epsilon_of(run), np.full(8, 0.25))


def test_a_run_that_ends_before_its_first_step_after_a_restart_keeps_its_replay(start):
    with start() as run:
        run.act_and_store()
    for _ in range(2):
        with start() as run:
            assert run.replay.size_steps == 2 * 8


def test_running_statistics_go_on_after_a_restart_and_only_learning_adds_to_them(start):
    gin.bind_parameter("normalization.observations", True)
    try:
        with start() as run:
            while run.replay.size_steps < 64:
                run.act_and_store()
            for _ in range(2):
                run.learn(run.replay.sample(32))
            before = run._agent.statistics.sums[0].numpy()
            assert before[0] == 2 * 32
            run.act_and_store()
            run._evaluate()
        with start() as run:
            np.testing.assert_array_equal(run._agent.statistics.sums[0].numpy(), before)
    finally:
        gin.clear_config()
