"""The precision in which torsos calculate: that of the learner which builds its networks.

With "bfloat16" the layers of a torso multiply in bfloat16, and their variables stay float32, so
that checkpoints and what travels are the same. What comes after a torso is float32: recurrent
layers, heads, losses, targets. bfloat16 has the range of float32, so that no loss needs to be
scaled, and 8 bits of precision, about 0.4 %. GPUs and TPUs calculate in it, and processors with the
instructions for it; others only as if, slower than in float32.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import pathlib
from collections.abc import Iterator

import tensorflow as tf

from tfdrl.errors import ConfigurationError

#: Keras' name of what a layer calculates in, by the name of the setting.
_POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16"}

#: What /proc/cpuinfo calls the instructions of x86 and of Arm.
_INSTRUCTIONS = {"avx512_bf16", "amx_bf16", "bf16"}
_PROCESSOR = pathlib.Path("/proc/cpuinfo")


class Precision:
    """What layers of torsos are made with; `layers` counts them."""

    def __init__(self, compute_dtype: str):
        if compute_dtype not in _POLICIES:
            raise ConfigurationError(
                f"compute_dtype = {compute_dtype!r} must be 'float32' or 'bfloat16'"
            )
        self.policy = tf.keras.mixed_precision.Policy(_POLICIES[compute_dtype])
        self.layers = 0


_current: contextvars.ContextVar[Precision | None] = contextvars.ContextVar("current", default=None)


@contextlib.contextmanager
def torsos_in(compute_dtype: str) -> Iterator[Precision]:
    """Networks that are built meanwhile have torsos that calculate in this dtype.

    Args:
      compute_dtype: "float32" or "bfloat16".
    """
    precision = Precision(compute_dtype)
    token = _current.set(precision)
    try:
        yield precision
    finally:
        _current.reset(token)


def torso_policy() -> tf.keras.mixed_precision.Policy:
    """The `dtype` of a torso's layer that is made now."""
    precision = _current.get()
    if precision is None:
        return Precision("float32").policy
    precision.layers += 1
    return precision.policy


def tell_of_slow_bfloat16() -> None:
    """Warns where nothing calculates in bfloat16: no accelerator, no instructions of processors."""
    if any(tf.config.list_logical_devices(kind) for kind in ("GPU", "TPU")):
        return
    try:
        words = set(_PROCESSOR.read_text().split())
    except OSError:
        return
    if not words & _INSTRUCTIONS:
        logging.warning(
            "compute_dtype = 'bfloat16': there is no GPU, and this processor has no instructions "
            "for it (avx512_bf16, amx_bf16; /proc/cpuinfo): float32 is at least twice as fast here"
        )
