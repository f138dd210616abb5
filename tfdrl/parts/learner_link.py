"""A role's connection to the learner: pulls parameters, reports counters, learns when to stop.

One thread does the talking, so that acting never waits for the network. A reply is applied by
the role itself, between two steps.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Mapping, Sequence

import numpy as np
import tensorflow as tf

from tfdrl.errors import TfdrlError, UnavailableError
from tfdrl.parts.metrics import Every
from tfdrl.rpc import security
from tfdrl.rpc.training_client import TrainingClient
from tfdrl.rpc.training_messages import finite_episodes
from tfdrl.topology import Address, Context
from tfdrl.types import Episodes

_REPORT_PERIOD_SECS = 1.0
_PULL_SECS = 10.0  # acting goes on with the old parameters after that
_LAST_REPORT_SECS = 3.0  # a role that is told to stop ends within 10


class LearnerLink:
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
      frames_total: environment frames of all actors, as of the last report.
      run_id: drawn at random by each start of a role: its counters are its own.
    """

    def __init__(
        self,
        address: Address,
        context: Context,
        variables: Sequence[tf.Variable],
        specs: str,
        timeout_secs: float,
        parameters_from: Address | None = None,
    ):
        self.version = -1
        self.frames_total = 0
        self.run_id = random.SystemRandom().getrandbits(63)
        sender = {
            "experiment": context.experiment,
            "role": context.role,
            "task": context.task,
            "run_id": self.run_id,
            "specs": specs,
            "security": security.of(context),
        }
        self._client = self._source = TrainingClient(address, **sender)
        if parameters_from not in (None, address):
            self._source = TrainingClient(parameters_from, **sender)
        self._variables, self._context = list(variables), context
        self._address, self._timeout_secs = address, timeout_secs
        self._lock = threading.Lock()
        self._pull_wanted = threading.Event()
        self._pull_ended = threading.Event()  # with parameters, or without
        self._newest = None  # (version, tensors) that came and were not applied yet
        self._report = {"frames": 0, "metrics": {}, "returns": [], "lengths": []}
        self._error: TfdrlError | None = None
        self._answered_secs = time.monotonic()
        self._thread = threading.Thread(target=self._talk, name="learner-link", daemon=True)

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
        while not self._pull_ended.wait(0.1):
            if self._context.stop.is_set() or time.monotonic() > deadline:
                break
        return self.apply_newest()

    def check(self) -> None:
        """Raises what `apply_newest` would."""
        if self._error is not None:
            raise self._error

    def wait_for_newer(self, period_secs: float) -> bool:
        """Waits until a newer version was applied, or the role should stop (then False)."""
        while not self._context.stop.is_set():
            self.request_parameters()
            if self.apply_newest():
                return True
            self._context.stop.wait(period_secs)
        return False

    def report(self, frames: int, metrics: Mapping[str, float], episodes: Episodes) -> None:
        """Sets what the next report, within a second, tells: cumulative frames, newest metrics.

        Episodes whose return is not finite are left out, with a warning: the learner, whose loss
        such rewards spoil, says how the run goes on.
        """
        episodes = finite_episodes(episodes)
        with self._lock:
            self._report["frames"] = frames
            self._report["metrics"] = dict(metrics)
            self._report["returns"].extend(episodes.returns.tolist())
            self._report["lengths"].extend(episodes.length_frames.tolist())

    def report_now(self, **report) -> None:
        """Reports at once, as `TrainingClient.report` takes it. Raises UnavailableError."""
        self._take(self._client.report(**report))

    def close(self) -> None:
        """Sends what was not reported yet, if the learner is still there."""
        with contextlib.suppress(TfdrlError):  # the learner may have ended first
            self._send_report(_LAST_REPORT_SECS)
        self._client.close()
        self._source.close()

    def _talk(self):
        report_is_due = Every(_REPORT_PERIOD_SECS, at_once=True)
        warning_is_due = Every(5.0, at_once=True)
        while not self._context.stop.is_set():
            try:
                if self._pull_wanted.wait(0.1):
                    self._pull_wanted.clear()
                    self._pull_in_background()
                    self._answered_secs = time.monotonic()
                if report_is_due():
                    self._send_report()
                    self._answered_secs = time.monotonic()
            except UnavailableError as error:
                silent_secs = time.monotonic() - self._answered_secs
                if silent_secs > self._timeout_secs:
                    self._error = error
                    return
                if warning_is_due():
                    logging.warning("the learner does not answer (%.0f s): %s", silent_secs, error)
                self._context.stop.wait(0.5)
            except TfdrlError as error:
                self._error = error
                return

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

    def _send_report(self, timeout_secs: float = 5.0):
        with self._lock:
            report = dict(self._report)
            sent = len(report["returns"])
            report["returns"] = report["returns"][:sent]
            report["lengths"] = report["lengths"][:sent]
        reply = self._client.report(**report, timeout_secs=timeout_secs)
        with self._lock:
            del self._report["returns"][:sent], self._report["lengths"][:sent]
        self._take(reply)

    def _take(self, reply) -> None:
        self.frames_total = reply.frames_total
        if reply.stop:
            self._context.stop.set()

    def _apply(self, newest) -> bool:
        if newest is None or newest[0] == self.version:  # two pulls may bring the same version
            return False
        version, tensors = newest
        for variable, tensor in zip(self._variables, tensors):
            variable.assign(tensor)
        self.version = version
        return True


def no_episodes() -> Episodes:
    """What a role without training episodes reports."""
    return Episodes(np.zeros(0, np.float32), np.zeros(0, np.int64))
