"""What the launcher knows of a running training: polled from the learners by a thread."""

from __future__ import annotations

import dataclasses
import os
import threading
import time
from collections.abc import Sequence

from tfdrl.errors import TfdrlError
from tfdrl.rpc.run_client import TrainingClient
from tfdrl.rpc.run_messages import Evaluation, Status
from tfdrl.rpc.security import Security
from tfdrl.topology import Address

_POLL_SECS = 1.0
_TIMEOUT_SECS = 5.0
#: Reports older than this are no longer part of an average.
_RECENT_SECS = 30.0
#: A rate that nobody reports is measured over at least this time.
_RATE_WINDOW_SECS = 10.0
_FRAMES_RATE = "environment/frames_per_second"


@dataclasses.dataclass(frozen=True)
class RunStatus:
    """The last answer of the learner; times are those of time.monotonic().

    Attributes:
      status: None before the first answer.
      answered_secs: when it came.
      progress_secs: when learner steps or frames last grew (or the watch began).
      first_answered_secs: when the first answer came.
      first, best: the first and the best evaluation of this start; None without one.
      frames_per_second: reported, or else measured; None if unknown.
      steps_per_second: the same for learner steps.
    """

    status: Status | None = None
    answered_secs: float = 0.0
    progress_secs: float = 0.0
    first_answered_secs: float = 0.0
    first: Evaluation | None = None
    best: Evaluation | None = None
    frames_per_second: float | None = None
    steps_per_second: float | None = None

    def metric(self, name: str) -> float | None:
        """The learner's metric, or the mean over the roles that report it; None if nobody does."""
        if self.status is None:
            return None
        if name in self.status.metrics:
            return self.status.metrics[name]
        found = [
            role.metrics[name]
            for role in self.status.roles
            if name in role.metrics and role.seconds_since_report < _RECENT_SECS
        ]
        return sum(found) / len(found) if found else None


class Tracker:
    """Turns a sequence of statuses into snapshots. Not thread-safe."""

    def __init__(self, now_secs: float):
        self.snapshot = RunStatus(progress_secs=now_secs)
        self._points: list[tuple[float, int, int]] = []  # (secs, frames, learner steps)

    def add(self, status: Status, now_secs: float) -> None:
        """Takes one answer of the learner, or of all of them, combined."""
        before = self.snapshot
        moved = before.status is None or (
            (status.learner_step, status.frames)
            != (before.status.learner_step, before.status.frames)
        )
        self.snapshot = RunStatus(
            status=status,
            answered_secs=now_secs,
            progress_secs=now_secs if moved else before.progress_secs,
            first_answered_secs=now_secs if before.status is None else before.first_answered_secs,
            first=before.first or status.evaluation,
            best=_better(before.best, status.evaluation),
        )
        frames_rate, steps_rate = self._rates(now_secs, status.frames, status.learner_step)
        reported_frames = self.snapshot.metric(_FRAMES_RATE)
        reported_steps = self.snapshot.metric("learner/steps_per_second")
        self.snapshot = dataclasses.replace(
            self.snapshot,
            frames_per_second=frames_rate if reported_frames is None else reported_frames,
            steps_per_second=steps_rate if reported_steps is None else reported_steps,
        )

    def _rates(self, now_secs: float, frames: int, steps: int) -> tuple[float | None, float | None]:
        points = self._points
        points.append((now_secs, frames, steps))
        while len(points) > 2 and now_secs - points[1][0] >= _RATE_WINDOW_SECS:
            points.pop(0)
        first_secs, first_frames, first_steps = points[0]
        elapsed_secs = now_secs - first_secs
        if elapsed_secs <= 0:
            return None, None
        # After a learner's restart the counters may be smaller.
        return (
            max(0.0, (frames - first_frames) / elapsed_secs),
            max(0.0, (steps - first_steps) / elapsed_secs),
        )


def _better(best: Evaluation | None, new: Evaluation | None) -> Evaluation | None:
    if new is None or (best is not None and best.mean >= new.mean):
        return best
    return new


def combined(statuses: Sequence[Status | None]) -> Status | None:
    """One status of several synchronous learners, whose actors report to one of them each.

    Frames and their rate are sums, other metrics means over the learners that have them, and
    the rest is the chief's, learner 0.

    Args:
      statuses: by task; None for a learner that has not answered yet.

    Returns None before the chief's first answer.
    """
    chief, known = statuses[0], [status for status in statuses if status is not None]
    if chief is None or len(known) == 1:
        return chief
    values: dict[str, list[float]] = {}
    for status in known:
        for name, value in status.metrics.items():
            values.setdefault(name, []).append(value)
    return chief._replace(
        frames=sum(status.frames for status in known),
        metrics={
            name: sum(found) / (1 if name == _FRAMES_RATE else len(found))
            for name, found in values.items()
        },
        roles=[role for status in known for role in status.roles],
        evaluation=_newest([status.evaluation for status in known]),
    )


def _newest(evaluations: Sequence[Evaluation | None]) -> Evaluation | None:
    found = [evaluation for evaluation in evaluations if evaluation is not None]
    return max(found, key=lambda evaluation: evaluation.version, default=None)


class Watch:
    """Asks the learners for their status every second, in a thread, until closed.

    Args:
      addresses: of the learners; empty for a program without one: nothing is ever known.
      experiment: digest of the configuration.
      security: of the channels.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        experiment: str,
        security: Security = Security(),  # noqa: B008  (immutable)
    ):
        self._addresses = tuple(addresses)
        self._experiment, self._security = experiment, security
        self._closed = threading.Event()
        self._tracker = Tracker(time.monotonic())
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)
        if self._addresses:
            self._thread.start()

    @property
    def snapshot(self) -> RunStatus:
        """What is known now."""
        return self._tracker.snapshot

    @property
    def is_watching(self) -> bool:
        return bool(self._addresses)

    def close(self) -> None:
        """Ends the thread, without waiting for a call in progress."""
        self._closed.set()

    def _run(self) -> None:
        run_id = int.from_bytes(os.urandom(7), "little")
        sender = {"experiment": self._experiment, "role": "launcher", "task": 0, "run_id": run_id}
        clients = [
            TrainingClient(address, **sender, security=self._security)
            for address in self._addresses
        ]
        statuses: list[Status | None] = [None] * len(clients)
        while not self._closed.wait(_POLL_SECS):
            answered = [self._ask(client, statuses, task) for task, client in enumerate(clients)]
            status = combined(statuses)
            if answered[0] and status is not None:
                self._tracker.add(status, time.monotonic())
        for client in clients:
            client.close()

    @staticmethod
    def _ask(client: TrainingClient, statuses: list[Status | None], task: int) -> bool:
        try:
            statuses[task] = client.status(timeout_secs=_TIMEOUT_SECS)
        except TfdrlError:
            return False  # the age of the chief's answer is what the user is told
        return True
