"""A3C in one process (Mnih 2016, section 4): threads that share one network and its statistics.

The parts are those of many processes. The parameter server is TensorFlow's own, in this process:
its sessions reach it without a network, and nothing is serialised. It has a port all the same.
"""

from __future__ import annotations

import dataclasses
import logging
import socket
import threading
import time
from collections.abc import Callable

from tfdrl.errors import TfdrlError
from tfdrl.experiment import Experiment
from tfdrl.parameter_server.coordinator import Learner
from tfdrl.parameter_server.role import TICK_SECS, ShardServer
from tfdrl.parameter_server.settings import ParameterServerSettings
from tfdrl.topology import Address, Context

_LAST_SECS = 6.0  # a role that is told to stop ends within 10


def run(
    experiment: Experiment,
    context: Context,
    make_learner: Callable[[], Learner],
    settings: ParameterServerSettings,
    *,
    coordinator: Callable,
    worker: Callable,
    workers: int,
    barrier: int,
) -> None:
    """Serves, coordinates and works until the run's end.

    Args:
      experiment, context: of the one process; its `listen` is the coordinator's address.
      make_learner: whose variables, as they are made, are the initial parameters.
      settings: of the server.
      coordinator, worker: the role functions; the worker's is called in `workers` threads.
      workers: how many.
      barrier: as of `protocol.Layout`.

    Raises:
      TfdrlError: as the coordinator, or the first worker that failed.
    """
    address = Address("127.0.0.1", _free_port())
    stop = threading.Event()
    learner = make_learner()
    served = ShardServer(
        learner.variables,
        settings,
        dataclasses.replace(context, replicas=1, task=0, listen=address),
        barrier,
        learner.moments,
    )
    crew = _WorkerThreads(context.stop)
    crew.start("parameter server", _serve, served, stop)
    for task in range(workers):
        mine = dataclasses.replace(
            context, role="worker", task=task, replicas=workers, listen=None, stop=stop
        )
        crew.start(f"worker {task}", worker, experiment, mine, address, context.listen)
    try:
        coordinator(experiment, context, address)
    finally:
        stop.set()
        crew.join(_LAST_SECS)
    served.checkpoint()  # not of a run that diverged
    served.close()
    crew.check()


class _WorkerThreads:
    """Threads, of which the first that fails ends the run with its error."""

    def __init__(self, stop: threading.Event):
        self._stop, self._threads = stop, []
        self._failure: tuple[str, BaseException] | None = None

    def start(self, name: str, function: Callable, *arguments) -> None:
        thread = threading.Thread(
            target=self._run, args=(name, function, *arguments), name=name, daemon=True
        )
        self._threads.append(thread)
        thread.start()

    def join(self, limit_secs: float) -> None:
        """Waits for all, at most `limit_secs`."""
        deadline_secs = time.monotonic() + limit_secs
        for thread in self._threads:
            thread.join(max(0.0, deadline_secs - time.monotonic()))
            if thread.is_alive():
                logging.warning("%s did not stop within %g s", thread.name, limit_secs)

    def check(self) -> None:
        """Raises what the first failed thread raised."""
        if self._failure is None:
            return
        name, error = self._failure
        if isinstance(error, TfdrlError):
            raise error
        raise TfdrlError(f"{name} failed: {type(error).__name__}: {error}") from error

    def _run(self, name: str, function: Callable, *arguments) -> None:
        try:
            function(*arguments)
        except BaseException as error:
            logging.exception("%s failed", name)
            self._failure = self._failure or (name, error)
            self._stop.set()


def _serve(served: ShardServer, stop: threading.Event) -> None:
    while not stop.wait(TICK_SECS):
        served.tick()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
