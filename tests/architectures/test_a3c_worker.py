"""A worker of A3C on its own: what ends it beside the end of the run."""

import functools
import time
from concurrent import futures

import pytest
from running_roles import free_port

from tfdrl.agents.n_step_actor_critic import NStepActorCriticAgent
from tfdrl.architectures import a3c
from tfdrl.environments import gym_environment
from tfdrl.errors import UnavailableError
from tfdrl.experiment import Experiment
from tfdrl.networks.actor_critic_networks import MlpActorCriticNetwork
from tfdrl.parameter_server.role import ShardServer
from tfdrl.parameter_server.settings import ParameterServerSettings
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.topology import Address, Context


def test_it_gives_up_when_its_coordinator_does_not_come_back(tmp_path):
    """Its gradients would go on for ever, counted by nobody, and nobody could end them."""
    config = a3c.A3c(
        environment=functools.partial(gym_environment, id="tfdrl/Chain-v0"),
        agent=functools.partial(NStepActorCriticAgent, network=MlpActorCriticNetwork),
        parameter_server=ParameterServerSettings(),
        timeout_secs=2.0,
    )
    experiment, address = Experiment(config), Address("127.0.0.1", free_port())
    context = functools.partial(Context, root_dir=tmp_path, experiment="x")
    served = ShardServer(
        a3c.make_learner(experiment).variables,
        config.parameter_server,
        context("parameter_server", 0, 1, listen=address),
    )
    service = TrainingServer(Address("127.0.0.1", 0), "x")
    with futures.ThreadPoolExecutor(1) as threads:
        mine = context("worker", 0, 1)
        worker = threads.submit(a3c.worker, experiment, mine, address, service.address)
        deadline_secs = time.monotonic() + 60
        while not service.frames():
            assert time.monotonic() < deadline_secs and not worker.done(), worker.result(0)
            time.sleep(0.1)
        service.close()
        with pytest.raises(UnavailableError, match="no answer"):
            worker.result(30)
        mine.stop.set()
    served.close()
