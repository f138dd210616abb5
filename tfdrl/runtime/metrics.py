"""TensorBoard scalars, rates and waiting times: the same names in every role."""

from __future__ import annotations

import ast
import contextlib
import pathlib
import re
import time
from collections.abc import Iterator, Mapping

import numpy as np
import tensorflow as tf

from tfdrl.rpc import usage_log


class WaitingClock:
    """Adds up the time spent waiting inside `with clock:`."""

    def __init__(self):
        self._waited_secs = 0.0
        self._since_secs = time.monotonic()
        self._entered_secs = 0.0

    def __enter__(self):
        self._entered_secs = time.monotonic()

    def __exit__(self, *exception):
        self._waited_secs += time.monotonic() - self._entered_secs

    def take_share(self) -> float:
        """The share of time, 0 to 1, spent waiting since the last call."""
        now_secs = time.monotonic()
        share = self._waited_secs / max(now_secs - self._since_secs, 1e-9)
        self._waited_secs, self._since_secs = 0.0, now_secs
        return min(share, 1.0)


class Rate:
    """How fast a counter grows, per second, between two calls."""

    def __init__(self, count: float = 0.0):
        self._count, self._secs = count, time.monotonic()

    def take(self, count: float) -> float:
        now_secs = time.monotonic()
        rate = (count - self._count) / max(now_secs - self._secs, 1e-9)
        self._count, self._secs = count, now_secs
        return rate


class Every:
    """True at most once in a period.

    Args:
      period_secs: of how many seconds.
      at_once: whether it is true from the beginning.
      first_secs: the first period, if that is shorter; each is a tenth longer than the one before.
    """

    def __init__(self, period_secs: float, at_once: bool = False, first_secs: float | None = None):
        self._longest_secs = period_secs
        self._period_secs = first_secs or period_secs
        self._next_secs = time.monotonic() + (0.0 if at_once else self._period_secs)

    def __call__(self) -> bool:
        now_secs = time.monotonic()
        if now_secs < self._next_secs:
            return False
        self._next_secs = now_secs + self._period_secs
        self._period_secs = min(1.1 * self._period_secs, self._longest_secs)
        return True


class MetricsWriter:
    """Writes scalars under root_dir/tensorboard/<role>-<task>.

    Args:
      root_dir: of the run.
      role, task: whose metrics they are.
    """

    def __init__(self, root_dir: pathlib.Path, role: str, task: int):
        directory = pathlib.Path(root_dir) / "tensorboard" / f"{role}-{task}"
        self._writer = tf.summary.create_file_writer(str(directory))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Writes all of `metrics` at `step`, and what this process uses.

        A full disk costs the events, not the run.
        """
        # As arrays: TensorFlow keeps each Python number that it was ever given, 800 bytes of it.
        at = np.array(step, np.int64)
        try:
            with self._writer.as_default():
                for name, value in {**metrics, **usage_log.metrics()}.items():
                    tf.summary.scalar(name, np.array(value, np.float32), step=at)
            self._writer.flush()
        except tf.errors.OpError:
            pass  # told by the checkpoint's own warning, which matters more

    def histogram(self, step: int, name: str, counts: np.ndarray) -> None:
        """Writes how many of something came in buckets 0, 1, 2-3, 4-7, ..., <int64>[k]."""
        low = np.array([0, *(1 << i for i in range(len(counts) - 1))])
        # Each bucket by values of its own, at most a thousand in all.
        share = np.ceil(np.asarray(counts) * min(1.0, 1000 / max(counts.sum(), 1))).astype(int)
        with contextlib.suppress(tf.errors.OpError), self._writer.as_default():
            tf.summary.histogram(name, np.repeat(low, share), step=np.array(step, np.int64))

    def settings(self, text: str) -> None:
        """Writes gin settings: as text, and each that is a number, a bool or a name for HPARAMS.

        Args:
          text: lines `name.parameter = value`, as gin writes them.
        """
        from tensorboard.plugins.hparams import api

        shown = "\n".join("    " + line for line in text.splitlines())  # code, in Markdown
        with contextlib.suppress(tf.errors.OpError), self._writer.as_default():
            tf.summary.text("settings", shown, step=np.array(0, np.int64))
            api.hparams(dict(_plain_settings(text)))

    def close(self) -> None:
        self._writer.close()


def _plain_settings(text: str) -> Iterator[tuple[str, bool | float | str]]:
    """Those on one line; what is a list, or not there (None), has no place in HPARAMS."""
    for name, value in re.findall(r"^([\w./]+) = (.+)$", text, re.MULTILINE):
        with contextlib.suppress(ValueError, SyntaxError):
            parsed = value if value.startswith("@") else ast.literal_eval(value)
            if isinstance(parsed, (bool, int, float, str)):
                yield name, parsed
