"""Which devices a learner uses, as gin says."""

from __future__ import annotations

import gin
import tensorflow as tf

from tfdrl.errors import ConfigurationError


@gin.configurable
def strategy(kind: str = "default", devices: tuple | None = None) -> tf.distribute.Strategy:
    """The `tf.distribute` strategy of a learner.

    Args:
      kind: "default" (one device) or "mirrored" (synchronous replicas on several devices of
        this machine).
      devices: for "mirrored", such as ("GPU:0", "GPU:1"); None takes all GPUs. ("CPU:0", "CPU:1")
        makes as many logical CPU devices, which is for tests.

    Raises:
      ConfigurationError: an unknown kind, or devices that this machine does not have.
    """
    if kind == "default":
        return tf.distribute.get_strategy()
    if kind != "mirrored":
        raise ConfigurationError(f"strategy.kind = {kind!r} is unknown; use 'default', 'mirrored'")
    _make_logical_cpus(devices or ())
    there_are = [device.name.split("device:")[-1] for device in tf.config.list_logical_devices()]
    missing = [device for device in devices or () if device not in there_are]
    if missing:
        raise ConfigurationError(
            f"strategy.devices asks for {', '.join(missing)}, but this machine has only "
            f"{', '.join(there_are)}"
        )
    return tf.distribute.MirroredStrategy(list(devices) if devices else None)


def _make_logical_cpus(devices) -> None:
    cpus = [device for device in devices if device.startswith("CPU:")]
    physical = tf.config.list_physical_devices("CPU")[0]
    if len(cpus) > 1 and not tf.config.get_logical_device_configuration(physical):
        tf.config.set_logical_device_configuration(
            physical, [tf.config.LogicalDeviceConfiguration()] * len(cpus)
        )
