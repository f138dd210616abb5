"""The owner of one shard: its variables on TensorFlow's own server, snapshots, checkpoints, epochs.

A push may be under way at any moment. To see or to set back parameters and slots that belong
together, the owner shuts the shard's gate and waits until as many pushes have finished as have
started: a push counts itself as started before it looks at the gate, so that none slips through.
"""

from __future__ import annotations

import collections
import logging
import pathlib
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfdrl.errors import ConfigurationError, TfdrlError
from tfdrl.parameter_server.protocol import (
    AGE_BUCKETS,
    COUNTS,
    FINISHED,
    OUTLIER,
    PULLS,
    STARTED,
    STEPS,
    UPDATES,
    VERDICTS,
    VERSION,
    Layout,
)
from tfdrl.parameter_server.session import ServerSession
from tfdrl.parameter_server.settings import ParameterServerSettings
from tfdrl.parameter_server.shard_graph import ShardGraph
from tfdrl.rpc import channels
from tfdrl.runtime.checkpoints import Checkpoints
from tfdrl.runtime.locks import lock
from tfdrl.topology import Address

#: A push takes milliseconds; one that takes longer was cancelled with its worker, most likely.
_PUSH_SECS = 1.0
_EPOCH = "epoch"


class ParameterSnapshot(NamedTuple):
    """Parameters, slots and moments of one version, and the mean |loss| of the updates before it.

    `updates` are those that the slots know of: after a rollback fewer than the version says.
    """

    version: int
    updates: int
    mean_loss: float
    values: list[np.ndarray]


class Shard:
    """Serves one shard.

    Args:
      layout: its variables.
      initial: their values, if there is no checkpoint.
      settings: of the servers.
      address: where to serve; TensorFlow's server listens on every interface.
      directory: for checkpoints.

    Attributes:
      graph: the shard's graph.
      target: of sessions.
      restored: whether it began from a checkpoint.

    Raises:
      ConfigurationError: port or directory are in use.
      TfdrlError: there are checkpoints, and none can be read.
    """

    def __init__(
        self,
        layout: Layout,
        initial: Sequence[np.ndarray],
        settings: ParameterServerSettings,
        address: Address,
        directory: pathlib.Path,
    ):
        self._settings, self._directory = settings, pathlib.Path(directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._lock = lock(self._directory, "parameter server")
        name = f"parameter server {layout.task}"
        channels.require_free_port_everywhere(address, name)
        self.graph = ShardGraph(layout, settings)
        moments = [np.zeros(size) for size in layout.moments]
        values = [*initial, *self.graph.initial_slots, *moments]
        self._mirror = [tf.Variable(value, trainable=False) for value in values]
        holder = tf.Module()
        holder.values = self._mirror
        self._checkpoints = Checkpoints(self._directory / "checkpoints", {"shard": holder})
        self.restored = self._checkpoints.restore() is not None
        cluster = tf.train.ClusterSpec({"ps": {layout.task: str(address)}})
        self._server = tf.distribute.Server(cluster, job_name="ps", task_index=layout.task)
        self.target = self._server.target
        self._session = ServerSession(name, address, self.graph.graph, self._calls())
        self._session.connect()
        self._snapshots: collections.deque[ParameterSnapshot] = collections.deque(
            maxlen=settings.snapshots
        )
        self._losses_before = np.zeros(2)
        self._lost_pushes = 0
        self._begin()

    def _calls(self) -> dict[str, Any]:
        graph = self.graph
        return {
            "values": ([*graph.parameters, *graph.slots, *graph.moments], ()),
            "counters": ((graph.counts, graph.ages, graph.losses, graph.epoch), ()),
            "fill": (graph.fill, graph.fill_values),
            "fill_counters": (graph.fill_counters, graph.counter_values),
            "begin_epoch": (graph.begin_epoch, (graph.new_epoch, graph.forget_updates)),
            "open": (graph.open_gate, ()),
            "shut": (graph.shut_gate, ()),
        }

    def _begin(self) -> None:
        counters = self._checkpoints.counters.values
        counts = np.zeros(COUNTS, np.int64)
        ages, losses = np.zeros(AGE_BUCKETS, np.int64), np.zeros(2)
        if self.restored:
            counts[:] = counters["counts"]
            ages[:], losses[:] = counters["ages"], counters["losses"]
        counts[[STARTED, FINISHED]] = 0
        self._losses_before = losses
        epoch = self._next_epoch()
        self._session.call("fill", *(variable.numpy() for variable in self._mirror))
        self._session.call("fill_counters", counts, ages, losses, epoch)
        self._session.call("open")
        if self.restored:
            logging.info("continuing from version %d", counts[VERSION])
        elif epoch:
            logging.warning(
                "%s has no checkpoint, though a server ran there: it begins with initial values",
                self._directory,
            )

    def _next_epoch(self) -> int:
        """An epoch that no gradient was ever computed in; on disk before it is used."""
        path = self._directory / _EPOCH
        try:
            epoch = int(path.read_text()) + 1 if path.exists() else 0
            partial = path.with_suffix(".partial")
            partial.write_text(str(epoch))
            partial.replace(path)
        except (OSError, ValueError) as error:
            raise TfdrlError(
                f"{path} cannot be read and written ({error}): without it gradients of a discarded "
                "line could not be told from others"
            ) from None
        return epoch

    @property
    def snapshots(self) -> list[ParameterSnapshot]:
        """Oldest first."""
        return list(self._snapshots)

    def snapshot_if_due(self, version: int) -> bool:
        """Takes one when so many updates have come since the last, or none was taken yet.

        Args:
          version: the newest that is known.

        Returns whether one was taken.
        """
        if not self._settings.snapshots:
            return False
        last = self._snapshots[-1].version if self._snapshots else None
        is_due = last is None or version - last >= self._settings.snapshot_period_updates
        return is_due and self.snapshot() is not None

    def snapshot(self) -> ParameterSnapshot | None:
        """Keeps the parameters and slots as they are now; None, kept out, if not all are finite."""
        with self._quiet():
            values, counters = self._session.call("values"), self._session.call("counters")
        if not _are_finite(values):
            logging.error("no snapshot: parameters or slots are not finite")
            return None
        total, count = counters[2] - self._losses_before
        self._losses_before = counters[2]
        mean_loss = total / count if count else 0.0
        taken = ParameterSnapshot(
            int(counters[0][VERSION]), int(counters[0][UPDATES]), float(mean_loss), values
        )
        self._snapshots.append(taken)
        return taken

    def rollback(self, version: int) -> ParameterSnapshot | None:
        """Goes back to the newest snapshot that is not newer than `version`; None without one.

        Parameters and slots are set back together, in a new epoch: what was computed from the
        discarded ones is rejected. The version counts on, so that it never means two things.
        """
        found = [snapshot for snapshot in self._snapshots if snapshot.version <= version]
        if not found:
            return None
        try:
            epoch = self._next_epoch()
        except TfdrlError as error:
            logging.error("no rollback: %s", error)
            return None
        with self._quiet():
            self._session.call("fill", *found[-1].values)
            surplus = int(self._session.call("counters")[0][UPDATES]) - found[-1].updates
            self._session.call("begin_epoch", epoch, surplus)
            self._losses_before = self._session.call("counters")[2]
        self._snapshots = collections.deque(found, maxlen=self._settings.snapshots)
        logging.warning("rolled back to version %d", found[-1].version)
        return found[-1]

    def checkpoint(self) -> int | None:
        """Writes parameters, slots and counters; their version, or None, with a warning."""
        with self._quiet():
            values, counters = self._session.call("values"), self._session.call("counters")
        if not _are_finite(values):
            logging.error("no checkpoint: parameters or slots are not finite; the last is kept")
            return None
        for variable, value in zip(self._mirror, values):
            variable.assign(value)
        counts, ages, losses, _ = (np.asarray(value).tolist() for value in counters)
        saved = {"counts": counts, "ages": ages, "losses": losses}
        return counts[VERSION] if self._checkpoints.save(counts[VERSION], saved) else None

    def status(self) -> dict[str, Any]:
        """The counters since the first start, for people and the coordinator: JSON can hold it."""
        counts, ages, losses, epoch = self._session.call("counters")
        nbytes = self.graph.layout.nbytes
        pushes = counts[: len(VERDICTS)].sum() - counts[OUTLIER]  # which stay with their workers
        return {
            "version": int(counts[VERSION]),
            "epoch": int(epoch),
            "steps": int(counts[STEPS]),
            "verdicts": dict(zip(VERDICTS, counts[: len(VERDICTS)].tolist())),
            "pulls": int(counts[PULLS]),
            "bytes": int((counts[PULLS] + pushes) * nbytes),
            "ages": ages.tolist(),
            "losses": losses.tolist(),
            "snapshots": [[s.version, s.mean_loss] for s in self._snapshots],
        }

    def are_finite(self) -> bool:
        """Whether all parameters and slots are."""
        return _are_finite(self._session.call("values"))

    def close(self) -> None:
        """Gives the directory up. TensorFlow's server ends with its process only."""
        self._session.close()
        self._lock.release()

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """No push is under way inside."""
        self._session.call("shut")
        try:
            deadline_secs = time.monotonic() + _PUSH_SECS
            while True:
                counts = self._session.call("counters")[0]
                under_way = int(counts[STARTED] - counts[FINISHED])
                if under_way == self._lost_pushes:
                    break
                if time.monotonic() > deadline_secs:
                    self._lost_pushes = under_way
                    break
                time.sleep(0.001)
            yield
        finally:
            self._session.call("open")


def _are_finite(values: Sequence[np.ndarray]) -> bool:
    return all(np.isfinite(value).all() for value in values)


def require_settings(barrier: int, settings: ParameterServerSettings) -> None:
    """Raises ConfigurationError for settings that contradict each other."""
    if barrier and settings.max_gradient_age:
        raise ConfigurationError(
            f"parameter_server.max_gradient_age = {settings.max_gradient_age} with synchronous "
            "updates: there every gradient has age 0; leave it at None"
        )
