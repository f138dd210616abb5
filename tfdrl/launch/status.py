"""What the launcher knows of a running training: polled from the learner by a thread."""

from __future__ import annotations

import dataclasses
import os
import threading
import time

from tfdrl.errors import TfdrlError
from tfdrl.rpc.training_client import TrainingClient
from tfdrl.rpc.training_messages import Evaluation, Status
from tfdrl.topology import Address

_POLL_SECS = 1.0
_TIMEOUT_SECS = 5.0
#: Reports older than this are no longer part of an average.
_RECENT_SECS = 30.0
#: A rate that nobody reports is measured over at least this time.
_RATE_WINDOW_SECS = 10.0


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The last answer of the learner; times are those of time.monotonic().

    Attributes:
      status: None before the first answer.
      answered_secs: when it came.
      progress_secs: when learner steps or frames last grew (or the watch began).
      best: the best evaluation of this start; None without one.
      frames_per_second: reported, or else measured; None if unknown.
      steps_per_second: the same for learner steps.
    """

    status: Status | None = None
    answered_secs: float = 0.0
    progress_secs: float = 0.0
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
        self.snapshot = Snapshot(progress_secs=now_secs)
        self._points: list[tuple[float, int, int]] = []  # (secs, frames, learner steps)

    def add(self, status: Status, now_secs: float) -> None:
        """Takes one answer of the learner."""
        before = self.snapshot
        moved = before.status is None or (
            (status.learner_step, status.frames)
            != (before.status.learner_step, before.status.frames)
        )
        self.snapshot = Snapshot(
            status=status,
            answered_secs=now_secs,
            progress_secs=now_secs if moved else before.progress_secs,
            best=_better(before.best, status.evaluation),
        )
        frames_rate, steps_rate = self._rates(now_secs, status.frames, status.learner_step)
        reported_frames = self.snapshot.metric("environment/frames_per_second")
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


class Watch:
    """Asks the learner for its status every second, in a thread, until closed.

    Args:
      address: the learner's; None for a program without one: nothing is ever known.
      experiment: digest of the configuration.
    """

    def __init__(self, address: Address | None, experiment: str):
        self._address = address
        self._experiment = experiment
        self._closed = threading.Event()
        self._tracker = Tracker(time.monotonic())
        self._thread = threading.Thread(target=self._run, name="status", daemon=True)
        if address is not None:
            self._thread.start()

    @property
    def snapshot(self) -> Snapshot:
        """What is known now."""
        return self._tracker.snapshot

    @property
    def is_watching(self) -> bool:
        return self._address is not None

    def close(self) -> None:
        """Ends the thread, without waiting for a call in progress."""
        self._closed.set()

    def _run(self) -> None:
        run_id = int.from_bytes(os.urandom(7), "little")
        client = TrainingClient(
            self._address, experiment=self._experiment, role="launcher", task=0, run_id=run_id
        )
        while not self._closed.wait(_POLL_SECS):
            try:
                status = client.status(timeout_secs=_TIMEOUT_SECS)
            except TfdrlError:
                continue  # its age is what the user is told
            self._tracker.add(status, time.monotonic())
        client.close()
