"""A global replay is sampled uniformly: what else it might do is refused."""

import threading
import types

import pytest
import reverb

from tfdrl.environments import gym_environment
from tfdrl.errors import ConfigurationError
from tfdrl.replay import transition_table
from tfdrl.replay.several_servers import SharedSamples
from tfdrl.topology import Address


def test_a_table_that_samples_by_priority_is_refused():
    context = types.SimpleNamespace(task=0, stop=threading.Event())
    with gym_environment(1, True, 0, id="CartPole-v1") as environment:
        signature = transition_table.transition_signature(environment, 1)
        server = reverb.Server(
            [transition_table.replay_table(signature, sampler="prioritized")], port=None
        )
        with pytest.raises(ConfigurationError, match=r"by priority.*sampler = 'uniform'"):
            address = Address("localhost", server.port)
            SharedSamples(address, environment, 1, context, 4, 1, timeout_secs=10.0)
    server.stop()
