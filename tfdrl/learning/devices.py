"""Which devices a learner uses, as gin says, and with which other learners."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Callable, Sequence

import gin
import numpy as np
import tensorflow as tf

from tfdrl.errors import ConfigurationError
from tfdrl.learning import devices as learning_devices
from tfdrl.learning.clusters import Cluster
from tfdrl.topology import Context

_KINDS = ("default", "one_device", "mirrored", "multi_worker", "tpu")


def make_strategy(
    factory: Callable | None, context: Context, timeout_secs: float
) -> tf.distribute.Strategy:
    """The strategy of one learner, or of all learners of a run together.

    Call it before any other TensorFlow operation: the others are waited for here, and TensorFlow
    can be told of them at its start only.

    Args:
      factory: `strategy()`; None for the one that gin configures here. If it has a parameter
        `cluster` it gets a `Cluster`, or None for a learner on its own. One without it is called
        with TF_CONFIG set and all learners there: `tf.distribute.MultiWorkerMirroredStrategy`.
      context: of the learner.
      timeout_secs: how long learners wait for each other at the start; `clusters.Peers` bounds
        the steps.

    Raises:
      ConfigurationError: a strategy that the machine cannot give or that leaves learners apart,
        a port in use, a learner with other settings.
      UnavailableError: the other learners did not come in time.
    """
    factory = factory or strategy
    cluster = Cluster(context, timeout_secs) if context.cluster else None
    if _takes_cluster(factory):
        made = factory(cluster=cluster)
    elif cluster is None:
        made = factory()
    else:
        with cluster.joining():
            made = factory()
    if cluster is not None:
        cluster.check(made)
    return made


def _takes_cluster(factory: Callable) -> bool:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # a class written in C
        return False
    return "cluster" in parameters


@gin.configurable(denylist=["cluster"])
def strategy(
    kind: str = "default",
    devices: tuple | None = None,
    tpu: str = "local",
    cluster: Cluster | None = None,
) -> tf.distribute.Strategy:
    """The `tf.distribute` strategy of a learner.

    Args:
      kind: "default" (TensorFlow's first device), "one_device" (the one in `devices`), "mirrored"
        (synchronous replicas on several devices of this machine), "multi_worker" (several learner
        processes, each with all GPUs that it sees, or a CPU; CUDA_VISIBLE_DEVICES shares one
        machine's GPUs out) or "tpu" (synchronous replicas on cores of a TPU).
      devices: for "one_device" and "mirrored", such as ("GPU:0", "GPU:1"), where None takes all
        GPUs; for "tpu" such as ("TPU:0", "TPU:1"), where None takes all cores, and those left out
        are free for inference. ("CPU:0", "CPU:1") makes logical CPU devices, which is for tests.
      tpu: name or address of the TPU; "local" on a TPU VM.
      cluster: the learners of "multi_worker", from `make_strategy`; None for one learner.

    Raises:
      ConfigurationError: an unknown kind, devices that this machine does not have, or a kind that
        does not suit the number of learners.
      UnavailableError: the other learners did not come in time.
    """
    if kind not in _KINDS:
        raise ConfigurationError(
            f"strategy.kind = {kind!r} is unknown; use {', '.join(map(repr, _KINDS))}"
        )
    _check_number_of_learners(kind, cluster)
    if kind == "default" and devices:
        raise ConfigurationError(
            f"strategy.devices = {devices} would be left out by strategy.kind = 'default', which "
            "takes TensorFlow's first device; use 'one_device' or 'mirrored'"
        )
    if kind == "default":
        return tf.distribute.get_strategy()
    if kind == "multi_worker":
        return _multi_worker(devices, cluster)
    if kind == "tpu":
        return learning_devices.tpu_strategy(tpu, devices)
    make_logical_cpus(devices or ())
    check_devices("strategy.devices", devices or ())
    if kind == "one_device":
        if devices is None or len(devices) != 1:
            raise ConfigurationError(
                f"strategy.devices = {devices} for 'one_device'; name one, such as ('GPU:1',)"
            )
        return tf.distribute.OneDeviceStrategy(devices[0])
    return tf.distribute.MirroredStrategy(list(devices) if devices else None)


def _check_number_of_learners(kind: str, cluster: Cluster | None) -> None:
    if kind == "multi_worker" and cluster is None:
        raise ConfigurationError(
            "strategy.kind = 'multi_worker' is for several learners that train as one, but there "
            "is one learner: ask for more of them, or use 'default' or 'mirrored'"
        )
    if kind != "multi_worker" and cluster is not None:
        raise ConfigurationError(
            f"strategy.kind = {kind!r} would train each of the {len(cluster.addresses)} learners "
            "apart; use 'multi_worker'"
        )


def _multi_worker(devices: tuple | None, cluster: Cluster) -> tf.distribute.Strategy:
    if devices:
        raise ConfigurationError(
            f"strategy.devices = {devices} is for 'mirrored'; 'multi_worker' takes all GPUs that "
            "the process sees: leave it out, and set CUDA_VISIBLE_DEVICES instead"
        )
    with cluster.joining():
        return tf.distribute.MultiWorkerMirroredStrategy()


def make_logical_cpus(devices: Sequence[str]) -> None:
    """Makes as many logical CPU devices as the names ask for. Before TensorFlow's first operation.

    Does nothing if there are several already.
    """
    numbers = [int(device[4:]) for device in devices if re.fullmatch(r"CPU:\d+", device)]
    physical = tf.config.list_physical_devices("CPU")[0]
    if max(numbers, default=0) > 0 and not tf.config.get_logical_device_configuration(physical):
        tf.config.set_logical_device_configuration(
            physical, [tf.config.LogicalDeviceConfiguration()] * (max(numbers) + 1)
        )


def device_names() -> list[str]:
    """What this process has, as `check_devices` takes them: CPU:0, GPU:0, ..."""
    return [device.name.split("device:")[-1] for device in tf.config.list_logical_devices()]


def check_devices(setting: str, devices: Sequence[str]) -> None:
    """Raises ConfigurationError that names the setting if a device is not there; "" is any."""
    there_are = device_names()
    missing = [device for device in devices if device and device not in there_are]
    if missing:
        raise ConfigurationError(
            f"{setting} asks for {', '.join(missing)}, but this machine has only "
            f"{', '.join(there_are)}{_hidden()}"
        )


def _hidden() -> str:
    variable = os.environ.get("CUDA_VISIBLE_DEVICES")
    if variable is None:
        return ""
    return (
        f"; CUDA_VISIBLE_DEVICES={variable} lets it see no other GPUs (the setting gpu_roles names "
        "the roles that see any)"
    )


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
