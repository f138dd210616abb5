"""Which cores of a TPU train. There is no TPU: the topology is that of a v3-8."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tfdrl.errors import ConfigurationError
from tfdrl.learning.devices import device_assignment, tpu_strategy


@pytest.fixture(scope="module")
def topology():
    coordinates = [[x, y, 0, core] for y, x, core in itertools.product(range(2), repeat=3)]
    return tf.tpu.experimental.Topology(
        mesh_shape=[2, 2, 1, 2], device_coordinates=np.array([coordinates], np.int32)
    )


def test_named_cores_train_one_replica_each(topology):
    assignment = device_assignment(topology, ("TPU:0", "TPU:1", "TPU:5"))
    assert assignment.num_replicas == 3 and assignment.num_cores_per_replica == 1
    devices = [assignment.tpu_device(replica) for replica in range(3)]
    assert [device.rsplit("device:", 1)[-1] for device in devices] == ["TPU:0", "TPU:1", "TPU:5"]


@pytest.mark.parametrize("devices", [("TPU:8",), ("GPU:0",), ("TPU:1", "TPU:1"), ()])
def test_cores_that_cannot_be(topology, devices):
    with pytest.raises(ConfigurationError, match="name cores once each, out of TPU:0, TPU:1"):
        device_assignment(topology, devices)


def test_no_tpu_answers():
    with pytest.raises(ConfigurationError, match=r"strategy.tpu = 'local': no TPU answers \(.+\)"):
        tpu_strategy("local", None)
