"""The parameter server role: one shard, its control variables, its periods, its metrics."""

from __future__ import annotations

import json
import logging
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from tfdrl.errors import TfdrlError
from tfdrl.parameter_server import layout as parameter_server_layout
from tfdrl.parameter_server.control import NO_ROLLBACK, ControlVariables
from tfdrl.parameter_server.coordinator import Learner
from tfdrl.parameter_server.session import LostError, ServerSession
from tfdrl.parameter_server.settings import ParameterServerSettings
from tfdrl.parameter_server.shard import Shard, require_settings
from tfdrl.runtime.metrics import Every, MetricsWriter, Rate
from tfdrl.topology import Context

#: How late an order is carried out. Not more often: TensorFlow 2.15 keeps the rendezvous of a call,
#: some 800 bytes, for ever, if the call is cleaned up before its thread has let go of it
#: (`LocalRendezvous::StartAbort`), as happens to one of twenty, and more on a busy machine.
TICK_SECS = 0.5
_PAUSE_SECS = 0.1
_EVENTS_SECS = 5.0
_RETRY_SECS = 8.0


class ShardServer:
    """A shard with its control variables: looks at them, and does what is due, at each `tick`.

    Args:
      variables: of the agent, all shards', with their initial values.
      settings: of the servers.
      context: of the role; its `listen` is where TensorFlow's server listens.
      barrier: as of `protocol.Layout`.
      moments: running statistics of the agent.
    """

    def __init__(
        self,
        variables: Sequence[tf.Variable],
        settings: ParameterServerSettings,
        context: Context,
        barrier: int = 0,
        moments: Sequence[tf.Variable] = (),
    ):
        require_settings(barrier, settings)
        layouts, indices = parameter_server_layout.layouts(
            variables, context.replicas, barrier, moments
        )
        layout, mine = layouts[context.task], indices[context.task]
        directory = pathlib.Path(context.root_dir) / f"parameters-{context.task}"
        initial = [variables[i].numpy() for i in mine]
        logging.warning(
            "TensorFlow's server listens on all interfaces without authentication, and runs "
            "whatever graph it is sent: let only this run's hosts reach port %d",
            context.listen.port,
        )
        self.shard = Shard(layout, initial, settings, context.listen, directory)
        control = ControlVariables()
        self._control = ServerSession(
            f"parameter server {layout.task}",
            context.listen,
            control.graph,
            {
                "asked": (control.asked, ()),
                "begin": (control.begin, ()),
                "set_about": (control.set_about, (control.text,)),
                "set_status": (control.set_status, (control.text,)),
                "rollback": (control.rollback, (control.version,)),
            },
        )
        self._control.connect()
        self._control.call("begin")
        self._checkpoints = {"asked": 0, "written": 0, "version": None}
        self._rollbacks = 0
        self._is_frozen = False
        self._checkpoint_is_due = Every(settings.checkpoint_period_secs or float("inf"))
        self._told = ""
        if not self.shard.restored:
            self.checkpoint()  # so that every restart has one to continue from
        self._tell(self.shard.status())
        about = parameter_server_layout.about(layout, context.replicas, context.experiment)
        self._control.call("set_about", json.dumps(about))  # the last: now workers may come

    def tick(self) -> dict:
        """Does what is due or asked for, and returns the status, which others can read then."""
        version, checkpoints, is_frozen = self._control.call("asked")
        self._is_frozen = bool(is_frozen)
        if version != NO_ROLLBACK:
            self._roll_back(int(version))
        if checkpoints != self._checkpoints["asked"] or self._checkpoint_is_due():
            self._checkpoints["asked"] = int(checkpoints)
            self.checkpoint()
        status = self.shard.status()
        if self.shard.snapshot_if_due(status["version"]):
            status = self.shard.status()
        return self._tell(status)

    def checkpoint(self) -> None:
        """Writes one now, unless training diverged: then the last good one is kept."""
        if self._is_frozen:
            return
        version = self.shard.checkpoint()
        if version is not None:
            self._checkpoints["written"] += 1
            self._checkpoints["version"] = version

    def _roll_back(self, version: int) -> None:
        if self.shard.rollback(version) is None:
            logging.error("no rollback to version %d: there is no snapshot that old", version)
        else:
            self._rollbacks += 1
            self.checkpoint()  # or a restart would go on with what was discarded
        self._control.call("rollback", NO_ROLLBACK)

    def _tell(self, status: dict) -> dict:
        status |= {"checkpoints": self._checkpoints, "rollbacks": self._rollbacks}
        if (text := json.dumps(status)) != self._told:
            self._control.call("set_status", text)
            self._told = text
        return status

    def close(self) -> None:
        """Ends the sessions, not TensorFlow's server."""
        self._control.close()
        self.shard.close()


def serve(
    make_learner: Callable[[], Learner],
    settings: ParameterServerSettings,
    context: Context,
    barrier: int = 0,
) -> None:
    """Serves a shard until `context.stop`, then writes a last checkpoint.

    Args:
      make_learner: whose variables, as they are made, are the initial parameters.
      settings, context, barrier: as of `ShardServer`.
    """
    learner = make_learner()
    served = ShardServer(learner.variables, settings, context, barrier, learner.moments)
    metrics = ShardMetrics(context)
    while not context.stop.wait(TICK_SECS):
        metrics.write_if_due(retried(served.tick, context.task))
    retried(served.checkpoint, context.task)
    served.close()
    metrics.close()


def retried(call: Callable[[], Any], task: int) -> Any:
    """What `call` returns; where TensorFlow breaks it off, which it does once in a while, again.

    Raises TfdrlError when it was broken off for some seconds.
    """
    deadline_secs = time.monotonic() + _RETRY_SECS
    while True:
        try:
            return call()
        except LostError as error:
            if time.monotonic() > deadline_secs:
                raise TfdrlError(
                    f"parameter server {task} could not reach its own shard for {_RETRY_SECS:g} s: "
                    f"{error}"
                ) from None
            logging.warning("parameter server %d tries again: %s", task, error)
            time.sleep(_PAUSE_SECS)


class ShardMetrics:
    """TensorBoard events of one shard."""

    def __init__(self, context: Context):
        self._writer = MetricsWriter(context.root_dir, context.role, context.task)
        self._is_due = Every(_EVENTS_SECS)
        self._rates: dict[str, Rate] = {}

    def write_if_due(self, status: dict) -> None:
        """Writes rates, rejections and the histogram of gradient ages every 5 s."""
        if not self._is_due():
            return
        counts = {"versions": status["version"], "pulls": status["pulls"], "bytes": status["bytes"]}
        values = {
            f"parameter_server/{name}_per_second": max(
                0.0, self._rates.setdefault(name, Rate(count)).take(count)
            )
            for name, count in counts.items()
        }
        values |= {f"parameter_server/{k}": v for k, v in status["verdicts"].items()}
        values["parameter_server/epoch"] = status["epoch"]
        self._writer.write(status["version"], values)
        ages = np.asarray(status["ages"])
        self._writer.histogram(status["version"], "parameter_server/gradient_age", ages)

    def close(self) -> None:
        self._writer.close()
