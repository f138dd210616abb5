"""A role's connection to the learner: pulls parameters, reports counters, learns when to stop.

A reply is applied by the role itself, between two steps.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence

import tensorflow as tf

from tfdrl.acting.run_connection import RunConnection
from tfdrl.errors import UnavailableError
from tfdrl.rpc.run_client import TrainingClient
from tfdrl.runtime.metrics import Every, WaitingClock
from tfdrl.topology import Address, Context

_PULL_SECS = 10.0  # acting goes on with the old parameters after that


class LearnerConnection(RunConnection):
    """Keeps the variables of a policy at the learner's newest version.

    Args:
      address: of the learner, the chief if there are several.
      context: of this role; its `stop` is set when the learner says so.
      variables: of the policy, in the learner's order.
      specs: text of the environment's specs, compared with the learner's.
      timeout_secs: how long the learner may be unreachable, at the start and later.
      parameters_from: address of the learner that parameters are pulled from; None: the same.

    Attributes:
      version: of the parameters that the variables hold; -1 before the first.
      pulling: the role's time in `pull`.
    """

    whom = "the learner"

    def __init__(
        self,
        address: Address,
        context: Context,
        variables: Sequence[tf.Variable],
        specs: str,
        timeout_secs: float,
        parameters_from: Address | None = None,
    ):
        super().__init__(address, context, specs, timeout_secs)
        self._source = self._client
        if parameters_from not in (None, address):
            self._source = TrainingClient(parameters_from, **self._sender)
        self._variables, self._address = list(variables), address
        self.pulling = WaitingClock()
        self._pull_wanted = threading.Event()
        self._pull_ended = threading.Event()  # with parameters, or without
        self._newest = None  # (version, tensors) that came and were not applied yet

    def start(self) -> None:
        """Joins, and waits for the first parameters.

        Raises:
          UnavailableError: the learner did not come up, or published nothing, in time.
          ConfigurationError: it belongs to another experiment or has other specs.
        """
        stop = self._context.stop
        self._client.join(self._timeout_secs, stop)
        if self._source is not self._client:
            self._source.join(self._timeout_secs, stop)
        deadline = time.monotonic() + self._timeout_secs
        warning_is_due = Every(5.0)
        while not stop.is_set() and not self._apply(self._pull_once()):
            if time.monotonic() > deadline:
                raise UnavailableError(
                    f"the learner at {self._address} published no parameters within "
                    f"{self._timeout_secs:.0f} s"
                )
            if warning_is_due():
                logging.warning("waiting for the first parameters of the learner")
            stop.wait(0.1)
        self._answered_secs = time.monotonic()
        self._thread.start()

    def request_parameters(self) -> None:
        """Asks for a newer version, in the background."""
        self._pull_wanted.set()
        self._wake.set()

    def apply_newest(self) -> bool:
        """Moves newly arrived parameters into the variables; returns whether there were any.

        Raises:
          UnavailableError: the learner was unreachable for too long.
          ConfigurationError: it refused this role.
        """
        self.check()
        if self._newest is None:
            return False
        with self._lock:
            newest, self._newest = self._newest, None
        return self._apply(newest)

    def pull(self) -> bool:
        """Asks for a newer version and waits for the answer; returns whether there was one.

        If the learner does not answer within 10 s, the old parameters stay. Returns at once when
        the role should stop.

        Raises:
          UnavailableError, ConfigurationError: as `apply_newest`.
        """
        self.check()
        self._pull_ended.clear()
        self.request_parameters()
        deadline = time.monotonic() + _PULL_SECS
        with self.pulling:
            while not self._pull_ended.wait(0.1):
                if self._context.stop.is_set() or time.monotonic() > deadline:
                    break
        return self.apply_newest()

    def wait_for_newer(self, period_secs: float) -> bool:
        """Waits until a newer version was applied, or the role should stop (then False)."""
        while not self._context.stop.is_set():
            self.request_parameters()
            if self.apply_newest():
                return True
            self._context.stop.wait(period_secs)
        return False

    def close(self) -> None:
        """Sends what was not reported yet, if the learner is still there."""
        super().close()
        self._source.close()

    def _wait_and_serve(self) -> None:
        super()._wait_and_serve()
        if self._pull_wanted.is_set():
            self._pull_wanted.clear()
            self._pull_in_background()
            self._answered_secs = time.monotonic()

    def _pull_in_background(self):
        try:
            newest = self._pull_once()
            if newest is not None:
                with self._lock:
                    self._newest = newest
        finally:
            self._pull_ended.set()

    def _pull_once(self):
        try:
            return self._source.parameters(self.version)
        except UnavailableError:
            if self._thread.is_alive():
                raise
            return None

    def _apply(self, newest) -> bool:
        if newest is None or newest[0] == self.version:  # two pulls may bring the same version
            return False
        version, tensors = newest
        for variable, tensor in zip(self._variables, tensors):
            variable.assign(tensor)
        self.version = version
        self.pulls += 1
        return True
