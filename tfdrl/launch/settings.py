"""How a run is placed and watched over: what a launcher is told beside the gin files."""

from __future__ import annotations

import math
import numbers
from collections.abc import Sequence
from typing import NamedTuple

from tfdrl.errors import ConfigurationError


class Limits(NamedTuple):
    """Settings of the supervision."""

    first_backoff_secs: float = 1.0  # doubles with each restart
    max_backoff_secs: float = 30.0
    max_restarts: int = 5  # of one replica, within the window; at the next death it is given up
    restart_window_secs: float = 300.0
    min_replicas_share: float = 0.5  # of a role, that must be left, or the run ends
    grace_secs: float = 10.0  # from SIGTERM to SIGKILL, for each stage of the shutdown
    finish_secs: float = 60.0  # from the end of another learner to that of the chief, learner 0


class LauncherSettings(NamedTuple):
    """How a run is placed and watched over.

    Attributes:
      limits: of restarts and of the shutdown.
      stuck_after_secs: without a learner step and without a frame for so long, the run ends.
      verbose: the roles keep the messages of TensorFlow and other libraries in their logs.
      allow_config_change: continue root_dir with settings that differ from its config.gin.
      preload: roles are forked from a process that has imported TensorFlow already; else each
        imports it anew.
      resources: what a replica of a role wants, such as "learner=gpu:1,cpu:8"; as
        `placement.parse` reads it.
      insecure_network: services that other machines can reach are neither encrypted nor ask for a
        token.
    """

    limits: Limits = Limits()
    stuck_after_secs: float = 600.0
    verbose: bool = False
    allow_config_change: bool = False
    preload: bool = True
    resources: Sequence[str] = ()
    insecure_network: bool = False


def finite_number(name: str, value: object, lowest: float) -> float:
    """The number, of Python's or NumPy's. Raises ConfigurationError for what is none, or below."""
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not (is_number and lowest <= value < math.inf):
        raise ConfigurationError(f"{name}={value!r} must be a finite number of at least {lowest:g}")
    return float(value)


def whole_number(name: str, value: object, lowest: int) -> int:
    """The number, of Python's or NumPy's. Raises ConfigurationError for what is none, or below."""
    is_number = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not (is_number and lowest <= value):
        raise ConfigurationError(f"{name}={value!r} must be a whole number of at least {lowest}")
    return int(value)
