"""A worker of A3C on its own: what ends it beside the end of the run, and its rollouts."""

import contextlib
import functools
import time
from concurrent import futures

import numpy as np
import pytest
import tree
from running_roles import free_port

from tfdrl.agents.n_step_actor_critic import NStepActorCriticAgent
from tfdrl.agents.n_step_q import NStepQAgent
from tfdrl.architectures import a3c
from tfdrl.environments import gym_environment
from tfdrl.errors import UnavailableError
from tfdrl.experiment import Experiment
from tfdrl.networks.actor_critic_networks import MlpActorCriticNetwork
from tfdrl.networks.q_networks import MlpQNetwork
from tfdrl.parameter_server.gradients import LossGradient
from tfdrl.parameter_server.role import ShardServer
from tfdrl.parameter_server.settings import ParameterServerSettings
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.topology import Address, Context

_CHAIN = functools.partial(gym_environment, id="tfdrl/Chain-v0")


@contextlib.contextmanager
def working(agent, root_dir, **settings):
    """A worker with its server and its coordinator's service: (service, the worker's future)."""
    config = a3c.A3c(
        environment=_CHAIN, agent=agent, parameter_server=ParameterServerSettings(), **settings
    )
    experiment, address = Experiment(config), Address("127.0.0.1", free_port())
    context = functools.partial(Context, root_dir=root_dir, experiment="x")
    served = ShardServer(
        a3c.make_learner(experiment).variables,
        config.parameter_server,
        context("parameter_server", 0, 1, listen=address),
    )
    service = TrainingServer(Address("127.0.0.1", 0), "x")
    with futures.ThreadPoolExecutor(1) as threads:
        mine = context("worker", 0, 1)
        worker = threads.submit(a3c.worker, experiment, mine, address, service.address)
        try:
            yield service, worker
        finally:
            mine.stop.set()
            futures.wait([worker], 60)
            service.close()
    served.close()


def wait_for(condition, worker):
    deadline_secs = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline_secs and not worker.done(), worker.result(0)
        time.sleep(0.1)


def test_it_gives_up_when_its_coordinator_does_not_come_back(tmp_path):
    """Its gradients would go on for ever, counted by nobody, and nobody could end them."""
    agent = functools.partial(NStepActorCriticAgent, network=MlpActorCriticNetwork)
    with working(agent, tmp_path, timeout_secs=2.0) as (service, worker):
        wait_for(service.frames, worker)
        service.close()
        with pytest.raises(UnavailableError, match="no answer"):
            worker.result(30)


def test_a_rollout_of_sarsa_begins_with_the_last_transition_of_the_one_before(
    tmp_path, monkeypatch
):
    """That one gave its action alone: every transition is learnt from once."""
    rollouts, compute = [], LossGradient.__call__

    def record(self, unrolls):
        rollouts.append(unrolls)
        return compute(self, unrolls)

    monkeypatch.setattr(LossGradient, "__call__", record)
    agent = functools.partial(NStepQAgent, network=MlpQNetwork, algorithm="sarsa")
    settings = {"t_max": 3, "environments_per_worker": 2}
    with working(agent, tmp_path, **settings) as (_, worker):
        wait_for(lambda: len(rollouts) >= 20, worker)
    for one, other in zip(rollouts, rollouts[1:]):
        assert one.action.shape == (2, 3 + 1)
        parts = [(u.steps, u.action, u.info) for u in (one, other)]
        for leaf, next_leaf in zip(*map(tree.flatten, parts)):
            np.testing.assert_array_equal(leaf[:, 3], next_leaf[:, 0])
