"""TPUs: some cores for training, the others for inference (SEED RL, section 3.1).

Written to TensorFlow's documentation and untested on a TPU.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from tfdrl.errors import ConfigurationError


def tpu_strategy(tpu: str, devices: Sequence[str] | None) -> tf.distribute.TPUStrategy:
    """Synchronous replicas on cores of a TPU.

    Args:
      tpu: as `tf.distribute.cluster_resolver.TPUClusterResolver` takes it.
      devices: cores to train on, such as ("TPU:0", "TPU:1"); None: all.

    Raises ConfigurationError: there is no such TPU, or it has no such cores.
    """
    try:
        resolver = tf.distribute.cluster_resolver.TPUClusterResolver(tpu=tpu)
        tf.config.experimental_connect_to_cluster(resolver)
        topology = tf.tpu.experimental.initialize_tpu_system(resolver)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:200]
        raise ConfigurationError(
            f"strategy.kind = 'tpu', strategy.tpu = {tpu!r}: no TPU answers ({reason})"
        ) from None
    assignment = None if devices is None else device_assignment(topology, devices)
    return tf.distribute.TPUStrategy(resolver, experimental_device_assignment=assignment)


def device_assignment(
    topology: tf.tpu.experimental.Topology, devices: Sequence[str]
) -> tf.tpu.experimental.DeviceAssignment:
    """One replica on each of the named cores of one host.

    Raises ConfigurationError if a name is no core of the topology, or comes twice.
    """
    coordinates = topology.device_coordinates[0]  # <int>[cores of the host, dimensions]
    there_are = [f"TPU:{i}" for i in range(len(coordinates))]
    missing = [device for device in devices if device not in there_are]
    if missing or len(set(devices)) != len(devices) or not devices:
        raise ConfigurationError(
            f"strategy.devices = {tuple(devices)}: name cores once each, out of "
            f"{', '.join(there_are)}"
        )
    cores = [there_are.index(device) for device in devices]
    # [replicas, cores of a replica, dimensions]
    return tf.tpu.experimental.DeviceAssignment(topology, np.asarray(coordinates)[cores][:, None])
