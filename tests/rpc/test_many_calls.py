"""Calls that have ended leave nothing of themselves to wait for the collection of garbage."""

import gc

import numpy as np

from tfdrl.rpc.run_client import TrainingClient
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.topology import Address


def test_a_role_may_pull_as_often_as_it_likes():
    """A connection has few streams, and a call that is kept anywhere keeps one."""
    server = TrainingServer(Address("127.0.0.1", 0), "digest")
    client = TrainingClient(server.address, experiment="digest", role="actor", task=0, run_id=1)
    gc.collect()
    gc.disable()
    try:
        for version in range(40):
            server.publish(version, [np.full(10_000, version, np.float32)])
            found, (array,) = client.parameters(version - 1)
            assert found == version and array[0] == version
    finally:
        gc.enable()
        client.close()
        server.close()
