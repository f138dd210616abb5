"""Several processes under one MultiWorkerMirroredStrategy: how they join, and what a loss means."""

from __future__ import annotations

import contextlib
import faulthandler
import json
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator

import tensorflow as tf

# For abort_collective_ops, which TensorFlow exports nowhere.
from tensorflow.python.eager import context as eager_context

from tfdrl.errors import EXIT_OK, ConfigurationError, UnavailableError
from tfdrl.learning import rendezvous
from tfdrl.rpc import channels
from tfdrl.topology import Context

#: In an error's text: it is about the other processes and not about this one's computation.
_ABOUT_OTHERS = re.compile("Collective ops is aborted|heartbeat timeout|remote target /job:worker")
_TASK = re.compile(r"/task:(\d+)")
_WATCH_SECS = 0.5

_LOG = logging.getLogger(__name__)


class Cluster:
    """The replicas of a role that train as one, each a process with an address of its own.

    A replica that was killed is noticed by the others at once, a machine that vanished by
    TensorFlow's heartbeats in 10 s, and a replica that lives but takes no part by `Peers`.

    Args:
      context: of this replica; its `cluster` has the addresses, in the order of the tasks.
      timeout_secs: how long to wait for the others.
    """

    def __init__(self, context: Context, timeout_secs: float):
        self._context = context
        self.timeout_secs = timeout_secs
        self.name = f"{context.role} {context.task}"
        self.addresses = context.cluster
        self.task = context.task

    @contextlib.contextmanager
    def joining(self) -> Iterator[None]:
        """Makes the strategy inside: `with cluster.joining(): MultiWorkerMirroredStrategy(...)`.

        First waits for the others, then sets TF_CONFIG for the strategy, whose making starts
        TensorFlow's server. If that takes longer than `timeout_secs` the process ends with exit
        code 1 and a stack trace: TensorFlow holds the interpreter then.

        Raises:
          ConfigurationError: the port is in use; a replica was started with other settings.
          UnavailableError: the others did not come in time, or went away at once.
          SystemExit: told to stop while waiting.
        """
        if not rendezvous.meet(self._context, self.timeout_secs):
            raise SystemExit(EXIT_OK)
        self._announce()
        spec = {"worker": [str(address) for address in self.addresses]}
        task = {"type": "worker", "index": self.task}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": spec, "task": task})
        channels.reach_directly(address.host for address in self.addresses)
        # Not a signal or a thread of Python's: neither runs while TensorFlow holds the interpreter.
        faulthandler.dump_traceback_later(self.timeout_secs, exit=True, file=sys.__stderr__)
        try:
            yield
        except tf.errors.OpError as error:
            raise UnavailableError(
                f"{self.name} could not join the others: {_first_line(error)}"
            ) from error
        finally:
            faulthandler.cancel_dump_traceback_later()
            _take_sigterm_back()

    def _announce(self) -> None:
        _LOG.info(
            "%s: all are there; starting TensorFlow's server (at most %g s)",
            self.name,
            self.timeout_secs,
        )
        if not all(address.is_loopback for address in self.addresses):
            _LOG.warning(
                "TensorFlow's server listens on all interfaces without authentication: let only "
                "this run's hosts reach port %d",
                self.addresses[self.task].port,
            )

    def check(self, strategy: tf.distribute.Strategy) -> None:
        """Raises ConfigurationError if `strategy` does not span the whole cluster."""
        resolver = strategy.cluster_resolver
        spec = resolver.cluster_spec().as_dict() if resolver else {}
        workers = sum(len(addresses) for addresses in spec.values())
        if workers != len(self.addresses):
            raise ConfigurationError(
                f"{type(strategy).__name__} would train each of the {len(self.addresses)} "
                f"{self._context.role} processes apart; use strategy.kind = 'multi_worker', or a "
                "factory that returns a MultiWorkerMirroredStrategy"
            )


class Peers:
    """Bounds what all replicas do together, and names the one that was lost.

        peers = Peers(context, timeout_secs)
        with peers.together():
            loss = train(batch)

    TensorFlow's own time limit of collectives keeps a sleeping thread for each until it is over,
    tens of thousands of them, so a thread here looks at the clock instead.

    Args:
      context: of this replica; without a cluster nothing is watched.
      timeout_secs: from the time this replica begins until the last one takes part.
    """

    def __init__(self, context: Context, timeout_secs: float):
        self._context, self._timeout_secs = context, timeout_secs
        self._is_clustered = bool(context.cluster)
        self._began_secs: float | None = None
        self._was_late = False
        if self._is_clustered:
            threading.Thread(target=self._watch, name="peers", daemon=True).start()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Around what needs the others: making variables under the strategy's scope, a step.

        Raises UnavailableError in place of tf.errors.OpError, where that is about the others.
        """
        self._began_secs = time.monotonic()
        try:
            yield
        except tf.errors.OpError as error:
            if not self._is_clustered or not _ABOUT_OTHERS.search(error.message):
                raise
            raise UnavailableError(self._lost(error)) from error
        finally:
            self._began_secs = None

    def _watch(self) -> None:
        while not self._was_late:
            time.sleep(_WATCH_SECS)
            began_secs = self._began_secs
            if began_secs is not None and time.monotonic() - began_secs > self._timeout_secs:
                self._was_late = True
                eager_context.context().abort_collective_ops(
                    tf.errors.UNAVAILABLE, f"nothing for {self._timeout_secs:g} s"
                )

    def _lost(self, error: tf.errors.OpError) -> str:
        context = self._context
        named = [int(task) for task in _TASK.findall(error.message)]
        others = [task for task in named if task != context.task and task < len(context.cluster)]
        what, hint = f"lost another {context.role}", "look at the logs of the others"
        if self._was_late:
            what = f"waited {self._timeout_secs:g} s for another {context.role} to take part"
        elif others:
            other = f"{context.role} {others[0]}"
            at = context.cluster[others[0]]
            what = f"lost {other} at {at}, which has ended or does not answer"
            hint = f"the log of {other} may say why"
        return f"{context.role} {context.task} {what}; {hint}. TensorFlow: {_first_line(error)}"


def _first_line(error: tf.errors.OpError) -> str:
    lines = [line.strip() for line in error.message.splitlines() if line.strip()]
    telling = [line for line in lines if _ABOUT_OTHERS.search(line)]
    return ([*telling, *lines] or [type(error).__name__])[0]


def _take_sigterm_back() -> None:
    # Joining installs TensorFlow's own handler, which only writes a line about a preemption.
    handler = signal.getsignal(signal.SIGTERM)
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)
