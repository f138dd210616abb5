"""Counts what roles report, each thing once however often it is reported."""

from __future__ import annotations

import collections
import dataclasses
import time
from typing import Any, NamedTuple

import numpy as np

from tfdrl.errors import ConfigurationError
from tfdrl.rpc import training_pb2
from tfdrl.rpc.run_messages import Evaluation, RoleStatus, evaluation_from_message
from tfdrl.types import Episodes, ItemCounts

#: Processes ever started, over the whole experiment; bounds what strangers can make us keep.
MAX_RUNS = 1 << 16
#: Kept until the learner takes them; beyond it the oldest go.
MAX_PENDING_EPISODES = 1 << 20
MAX_PENDING_EVALUATIONS = 1 << 12


class RunKey(NamedTuple):
    """One life of one process."""

    role: str
    task: int
    run_id: int


class TooManyRunsError(Exception):
    """More processes than `MAX_RUNS` have reported."""


@dataclasses.dataclass
class _Run:
    """What is known of one life of one process: all counters are cumulative."""

    frames: int = 0
    episodes: int = 0
    inserted: int = 0
    sampled: int = 0
    evaluation: Evaluation | None = None


class _LastReport(NamedTuple):
    run_id: int
    time_secs: float
    metrics: dict[str, float]


class Ledger:
    """Counters of all roles and runs. Not thread-safe: its owner holds a lock.

    frames() = sum over (role, task, run_id) of the largest count that it reported. So a report
    that comes twice, late or out of order changes nothing, and a restarted process, which has a
    new run_id and counts from 0, adds to what its predecessors did. Items are counted likewise.
    """

    def __init__(self) -> None:
        self._runs: dict[RunKey, _Run] = {}
        self._frames = 0
        self._items = ItemCounts(0, 0)  # over all runs, and what the owner itself sampled
        self._own_sampled = 0
        self._begin = ItemCounts(0, 0)  # what the counting for the ratio does not count
        self._counted_for: tuple[float | None] | None = None  # the ratio; None: for nothing yet
        self._last_reports: dict[tuple[str, int], _LastReport] = {}
        self._episodes: list[np.ndarray] = []  # <float64>[2, k] each: returns, lengths
        self._num_episodes = 0
        self._evaluations: collections.deque = collections.deque(maxlen=MAX_PENDING_EVALUATIONS)
        self.last_evaluation: Evaluation | None = None

    def record(self, request: training_pb2.ReportRequest) -> None:
        """Counts a report that `check_report` found sound.

        Raises TooManyRunsError, with nothing changed.
        """
        sender = request.sender
        key = RunKey(sender.role, sender.task, sender.run_id)
        if key not in self._runs and len(self._runs) >= MAX_RUNS:
            raise TooManyRunsError(f"{MAX_RUNS} processes have reported; no more can be counted")
        run = self._runs.setdefault(key, _Run())
        self._add_frames(run, request.frames)
        self._add_items(run, request.items_inserted, request.items_sampled)
        if request.episodes.returns:
            self._add_episodes(run, request.episodes)
        if request.HasField("evaluation"):
            self._add_evaluation(run, evaluation_from_message(request.evaluation))
        process = (sender.role, sender.task)
        metrics = dict(request.metrics)
        last = self._last_reports.get(process)
        if not metrics and last is not None and last.run_id == sender.run_id:
            metrics = last.metrics
        self._last_reports[process] = _LastReport(sender.run_id, time.monotonic(), metrics)

    def frames(self) -> int:
        """Environment frames over all roles and runs."""
        return self._frames

    def items(self) -> ItemCounts:
        """Items over all roles and runs, since the counting for the ratio began."""
        return ItemCounts(
            self._items.inserted - self._begin.inserted, self._items.sampled - self._begin.sampled
        )

    def count_sampled(self, items: int) -> None:
        """Adds items that the ledger's owner has trained on, who reports to nobody."""
        self._own_sampled += items
        self._items = self._items._replace(sampled=self._items.sampled + items)

    def count_for_ratio(self, ratio: float | None, inserted: int) -> bool:
        """Begins the counting of items anew, unless it was for this ratio before.

        What a run without a ratio, or with another, had left would count as being behind or ahead.

        Args:
          ratio: samples of an inserted item; None: nothing is held to anything.
          inserted: items that count as inserted, and none as sampled, at such a new beginning.

        Returns whether it began anew.
        """
        if self._counted_for == (ratio,):
            return False
        total, self._counted_for = self._items, (ratio,)
        self._begin = total._replace(inserted=total.inserted - inserted)
        return True

    def take_episodes(self) -> Episodes:
        """Episodes reported since the last call."""
        taken, self._episodes, self._num_episodes = self._episodes, [], 0
        returns, lengths = np.concatenate([np.zeros((2, 0)), *taken], axis=1)
        return Episodes(returns.astype(np.float32), lengths.astype(np.int64))

    def take_evaluations(self) -> list[Evaluation]:
        """Evaluations reported since the last call, in the order they came."""
        taken = list(self._evaluations)
        self._evaluations.clear()
        return taken

    def roles(self) -> list[RoleStatus]:
        """The last report of each process that ever reported to this ledger, sorted."""
        now_secs = time.monotonic()
        return [
            RoleStatus(role, task, last.run_id, now_secs - last.time_secs, dict(last.metrics))
            for (role, task), last in sorted(self._last_reports.items())
        ]

    def state(self) -> dict[str, Any]:
        """The counters, as JSON can hold them."""
        runs = [
            [*key, run.frames, run.episodes, run.inserted, run.sampled]
            for key, run in self._runs.items()
        ]
        if self._counted_for is None:
            return {"runs": runs}
        (ratio,) = self._counted_for
        items = {"ratio": ratio, "begin": [*self._begin], "own_sampled": self._own_sampled}
        return {"runs": runs, "items": items}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes the counters of `state()`; of a run known to both, the larger ones.

        Raises ConfigurationError, with nothing changed, if `state` is not such a state.
        """
        try:
            runs = dict(_saved_run(*row) for row in state["runs"])
            items = state.get("items", {})  # none in a state of an older version
            begin = ItemCounts(*(int(count) for count in items.get("begin", (0, 0))))
            own_sampled = int(items.get("own_sampled", 0))
            counted_for = (items["ratio"],) if items else None
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(
                "the counters of the checkpoint cannot be read "
                f"({type(error).__name__}: {error}); expected what TrainingServer.state() returned"
            ) from None
        for key, saved in runs.items():
            run = self._runs.setdefault(key, _Run())
            self._add_frames(run, saved.frames)
            self._add_items(run, saved.inserted, saved.sampled)
            run.episodes = max(run.episodes, saved.episodes)
        self.count_sampled(max(0, own_sampled - self._own_sampled))
        self._begin, self._counted_for = begin, counted_for

    def _add_frames(self, run: _Run, frames: int) -> None:
        self._frames += max(0, frames - run.frames)
        run.frames = max(run.frames, frames)

    def _add_items(self, run: _Run, inserted: int, sampled: int) -> None:
        self._items = ItemCounts(
            self._items.inserted + max(0, inserted - run.inserted),
            self._items.sampled + max(0, sampled - run.sampled),
        )
        run.inserted, run.sampled = max(run.inserted, inserted), max(run.sampled, sampled)

    def _add_episodes(self, run: _Run, episodes: training_pb2.Episodes) -> None:
        # Those that an earlier report brought, whose answer the sender never saw.
        known = max(0, run.episodes - episodes.first)
        run.episodes = max(run.episodes, episodes.first + len(episodes.returns))
        if known >= len(episodes.returns):
            return
        added = np.array([episodes.returns, episodes.length_frames], np.float64)[:, known:]
        self._episodes.append(added)
        self._num_episodes += added.shape[1]
        while self._num_episodes > MAX_PENDING_EPISODES:
            self._num_episodes -= self._episodes.pop(0).shape[1]

    def _add_evaluation(self, run: _Run, evaluation: Evaluation) -> None:
        if evaluation == run.evaluation:
            return
        run.evaluation = self.last_evaluation = evaluation
        self._evaluations.append(evaluation)


def _saved_run(role, task, run_id, frames, episodes, inserted=0, sampled=0) -> tuple[RunKey, _Run]:
    """Of a row of `Ledger.state`; those of older versions end before the items."""
    counts = (int(count) for count in (frames, episodes, inserted, sampled))
    return RunKey(str(role), int(task), int(run_id)), _Run(*counts)
