"""The time that an actor waits for parameters is told: a full network shows nowhere else."""

import time

import numpy as np
import tensorflow as tf

from tfdrl.acting.learner_connection import LearnerConnection
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.topology import Address, Context


def test_time_in_a_pull_is_counted(tmp_path, monkeypatch):
    server = TrainingServer(Address("127.0.0.1", 0), "digest")
    server.publish(0, [np.zeros(3, np.float32)])
    context = Context("actor", 0, 1, tmp_path, experiment="digest")
    connection = LearnerConnection(server.address, context, [tf.Variable(tf.ones(3))], "", 20.0)
    pull = connection._source.parameters

    def slowly(version):
        time.sleep(1.0)
        return pull(version)

    try:
        connection.start()
        connection.pulling.take_share()
        monkeypatch.setattr(connection._source, "parameters", slowly)
        server.publish(1, [np.ones(3, np.float32)])
        assert connection.pull() and connection.version == 1
        assert connection.pulling.take_share() > 0.5
        time.sleep(0.05)
        assert connection.pulling.take_share() < 0.01  # it was acting
    finally:
        context.stop.set()
        connection.close()
        server.close(0.0)
