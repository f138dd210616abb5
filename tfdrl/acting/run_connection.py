"""A role's connection to whoever counts for the run: reports counters, learns when to stop.

One thread does the talking, so that acting never waits for the network.
"""

from __future__ import annotations

import contextlib
import logging
import random
import threading
import time
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tfdrl.errors import TfdrlError, UnavailableError
from tfdrl.rpc import security, usage_log
from tfdrl.rpc.run_client import TrainingClient
from tfdrl.rpc.run_messages import finite_episodes
from tfdrl.runtime.metrics import Every
from tfdrl.topology import Address, Context
from tfdrl.types import Episodes, ItemCounts

_REPORT_PERIOD_SECS = 1.0
_LAST_REPORT_SECS = 3.0  # a role that is told to stop ends within 10


class ItemReports(NamedTuple):
    """What is known of the items of all roles since this role's last report.

    totals           over all roles and runs, in the reply to it
    reported         this role's own, in it
    reported_before  in the report before it
    """

    totals: ItemCounts = ItemCounts(0, 0)
    reported: ItemCounts = ItemCounts(0, 0)
    reported_before: ItemCounts = ItemCounts(0, 0)


class RunConnection:
    """Joins a run and reports to it every second.

    Args:
      address: of the learner (the chief if there are several), or of the coordinator.
      context: of this role; its `stop` is set when the other side says so.
      specs: text of the environment's specs, compared with the other side's.
      timeout_secs: how long the other side may be unreachable, at the start and later.

    Attributes:
      version: of the parameters that the role acts by; -1 if they come another way.
      pulls: how often newer parameters came that way.
      frames_total: environment frames of all actors, as of the last report.
      items: `ItemReports` as of the last report.
      run_id: drawn at random by each start of a role: its counters are its own.
    """

    #: What the other side is called in messages.
    whom = "the coordinator"

    def __init__(self, address: Address, context: Context, specs: str, timeout_secs: float):
        self.version, self.pulls = -1, 0
        self.frames_total = 0
        self.items = ItemReports()
        self.run_id = random.SystemRandom().getrandbits(63)
        self._sender = {
            "experiment": context.experiment,
            "role": context.role,
            "task": context.task,
            "run_id": self.run_id,
            "specs": specs,
            "security": security.of(context),
        }
        self._client = TrainingClient(address, **self._sender)
        self._context, self._timeout_secs = context, timeout_secs
        self._lock = threading.Lock()
        self._report = {"frames": 0, "metrics": {}, "returns": [], "lengths": []}
        self._items = ItemCounts(0, 0)
        self._wake, self._replied = threading.Event(), threading.Event()
        self._report_wanted = False
        self._error: TfdrlError | None = None
        self._answered_secs = time.monotonic()
        self._thread = threading.Thread(target=self._talk, name="run-link", daemon=True)

    def start(self) -> None:
        """Joins.

        Raises:
          UnavailableError: the other side did not come up in time.
          ConfigurationError: it belongs to another experiment or has other specs.
        """
        self._client.join(self._timeout_secs, self._context.stop)
        self._answered_secs = time.monotonic()
        self._thread.start()

    def check(self) -> None:
        """Raises UnavailableError or ConfigurationError if the connection has failed for good."""
        if self._error is not None:
            raise self._error

    def report(self, frames: int, metrics: Mapping[str, float], episodes: Episodes) -> None:
        """Sets what the next report, within a second, tells: cumulative frames, newest metrics.

        Episodes whose return is not finite are left out, with a warning: the learner, whose loss
        such rewards spoil, says how the run goes on.
        """
        episodes = finite_episodes(episodes)
        with self._lock:
            self._report["frames"] = frames
            self._report["metrics"] = {**metrics, **usage_log.metrics()}
            self._report["returns"].extend(episodes.returns.tolist())
            self._report["lengths"].extend(episodes.length_frames.tolist())

    def count_items(self, items: ItemCounts) -> None:
        """Sets what the next report tells of this role's items: cumulative."""
        self._items = items

    def request_report(self) -> None:
        """Reports in the background, without waiting for the next second."""
        self._report_wanted = True
        self._wake.set()

    def wait_for_reply(self, timeout_secs: float) -> None:
        """Waits until a report was answered since the last call, at most so long."""
        self._replied.wait(timeout_secs)
        self._replied.clear()

    def report_now(self, **report) -> None:
        """Reports at once, as `TrainingClient.report` takes it. Raises UnavailableError."""
        self._take(self._client.report(**report))

    def close(self) -> None:
        """Sends what was not reported yet, if the other side is still there."""
        if self._thread.is_alive():  # or both would send the same episodes
            self._thread.join(_LAST_REPORT_SECS)
        with contextlib.suppress(TfdrlError):  # it may have ended first
            self._send_report(_LAST_REPORT_SECS)
        self._client.close()

    def _talk(self):
        report_is_due = Every(_REPORT_PERIOD_SECS, at_once=True)
        warning_is_due = Every(5.0, at_once=True)
        while not self._context.stop.is_set():
            try:
                self._wait_and_serve()
                if report_is_due() or self._report_wanted:
                    self._report_wanted = False
                    self._send_report()
                    self._answered_secs = time.monotonic()
            except UnavailableError as error:
                silent_secs = time.monotonic() - self._answered_secs
                if silent_secs > self._timeout_secs:
                    self._error = error
                    return
                if warning_is_due():
                    logging.warning(
                        "%s does not answer (%.0f s): %s", self.whom, silent_secs, error
                    )
                self._context.stop.wait(0.5)
            except TfdrlError as error:
                self._error = error
                return

    def _wait_and_serve(self) -> None:
        """A tenth of a second, or until something is wanted; what else a subclass talks about."""
        if self._wake.wait(0.1):
            self._wake.clear()

    def _send_report(self, timeout_secs: float = 5.0):
        with self._lock:
            report = dict(self._report)
            sent = len(report["returns"])
            report["returns"] = report["returns"][:sent]
            report["lengths"] = report["lengths"][:sent]
        items = self._items
        reply = self._client.report(**report, items=items, timeout_secs=timeout_secs)
        with self._lock:
            del self._report["returns"][:sent], self._report["lengths"][:sent]
        self.items = ItemReports(reply.items, items, self.items.reported)
        self._take(reply)
        self._replied.set()

    def _take(self, reply) -> None:
        self.frames_total = reply.frames_total
        if reply.stop:
            self._context.stop.set()


def no_episodes() -> Episodes:
    """What a role without training episodes reports."""
    return Episodes(np.zeros(0, np.float32), np.zeros(0, np.int64))
