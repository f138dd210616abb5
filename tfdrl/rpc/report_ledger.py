"""Counts what roles report, each thing once however often it is reported."""

from __future__ import annotations

import collections
import dataclasses
import logging
import math
import time
from typing import Any, NamedTuple

import numpy as np

from tfdrl.rpc import training_pb2
from tfdrl.rpc.growth_limits import Counts, GrowthLimit, most_after
from tfdrl.rpc.report_rules import ReportRules
from tfdrl.rpc.run_messages import MAX_COUNT, Evaluation, RoleStatus, evaluation_from_message
from tfdrl.rpc.saved_counts import Run, SavedCounts
from tfdrl.rpc.tensors import MessageError
from tfdrl.types import Episodes, ItemCounts

_LOG = logging.getLogger(__name__)

#: Of a program without rules; bounds what unknown senders can make us keep.
MAX_PROCESSES = 1 << 14
#: Of one process: lives whose late reports are still told apart.
KEPT_RUNS = 16
#: A life of a process that was silent for so long may be forgotten.
SILENT_SECS = 60.0
#: Of all counts: what is answered is an int64.
MAX_TOTAL = 1 << 61
#: Kept until the learner takes them; beyond it the oldest go.
MAX_PENDING_EPISODES = 1 << 20
MAX_PENDING_EVALUATIONS = 1 << 12


class TooManyRunsError(Exception):
    """More processes than can be counted have reported; worth another try."""


class _LastReport(NamedTuple):
    run_id: int
    time_secs: float
    metrics: dict[str, float]


@dataclasses.dataclass
class _Process:
    """All lives of one (role, task), by run id; who reported last comes last."""

    runs: dict[int, Run] = dataclasses.field(default_factory=dict)
    limit: GrowthLimit = dataclasses.field(default_factory=GrowthLimit)
    last_report: _LastReport | None = None


class Ledger:
    """Counters of all roles and runs. Not thread-safe: its owner holds a lock.

    frames() = sum over (role, task, run_id) of the largest count that it reported. So a report
    that comes twice, late or out of order changes nothing, and a restarted process, which has a
    new run_id and counts from 0, adds to what its predecessors did. Items are counted likewise.
    Of the lives that are over the sum is kept.

    Args:
      rules: which processes there are.
    """

    def __init__(self, rules: ReportRules = ReportRules()) -> None:  # noqa: B008  (immutable)
        self._rules = rules
        self._processes: dict[tuple[str, int], _Process] = {}
        self._total = Counts()  # over all runs
        self._forgotten = Counts()  # part of it
        self._own_sampled = 0
        self._begin = ItemCounts(0, 0)  # what the counting for the ratio does not count
        self._counted_for: tuple[float | None] | None = None  # the ratio; None: for nothing yet
        self._episodes: list[np.ndarray] = []  # <float64>[2, k] each: returns, lengths
        self._num_episodes = 0
        self._evaluations: collections.deque = collections.deque(maxlen=MAX_PENDING_EVALUATIONS)
        self.last_evaluation: Evaluation | None = None

    def record(self, request: training_pb2.ReportRequest) -> None:
        """Counts a report that `check_report` and the rules found sound.

        Raises TooManyRunsError, or MessageError for counts that cannot be, with nothing changed.
        """
        sender = request.sender
        key = sender.role, sender.task
        process = self._processes.get(key) or self._new_process()
        run = process.runs.get(sender.run_id)
        before = Counts() if run is None else run.counts
        counts = Counts(request.frames, request.items_inserted, request.items_sampled)
        growth = counts.beyond(before)
        if max(self._total.plus(growth)) > MAX_TOTAL:
            raise MessageError(f"with {growth} the counts of all processes pass {MAX_TOTAL:,}")
        oldest = self._replaceable(process) if run is None else None
        process.limit.take(growth)
        if oldest is not None:
            self._forgotten = self._forgotten.plus(process.runs.pop(oldest).counts)
        process.runs[sender.run_id] = run = process.runs.pop(sender.run_id, None) or Run()
        self._processes[key] = process
        self._add(run, counts)
        run.seen_secs = time.monotonic()
        if request.episodes.returns:
            self._add_episodes(run, request.episodes)
        if request.HasField("evaluation"):
            self._add_evaluation(run, evaluation_from_message(request.evaluation))
        metrics, last = dict(request.metrics), process.last_report
        if not metrics and last is not None and last.run_id == sender.run_id:
            metrics = last.metrics
        process.last_report = _LastReport(sender.run_id, run.seen_secs, metrics)

    def frames(self) -> int:
        """Environment frames over all roles and runs."""
        return self._total.frames

    def items(self) -> ItemCounts:
        """Items over all roles and runs, since the counting for the ratio began."""
        items = self._items()
        return ItemCounts(
            items.inserted - self._begin.inserted, items.sampled - self._begin.sampled
        )

    def count_sampled(self, items: int) -> None:
        """Adds items that the ledger's owner has trained on, who reports to nobody."""
        self._own_sampled += items

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
        total, self._counted_for = self._items(), (ratio,)
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
        found = ((key, p.last_report) for key, p in sorted(self._processes.items()))
        return [
            RoleStatus(*key, last.run_id, now_secs - last.time_secs, dict(last.metrics))
            for key, last in found
            if last is not None
        ]

    def state(self) -> dict[str, Any]:
        """The counters, as JSON can hold them."""
        runs = [
            [*key, run_id, run.counts.frames, run.episodes, *run.counts[1:]]
            for key, process in self._processes.items()
            for run_id, run in process.runs.items()
        ]
        state: dict[str, Any] = {"runs": runs, "forgotten": [*self._forgotten]}
        if self._counted_for is not None:
            (ratio,) = self._counted_for
            begin = [*self._begin]
            state["items"] = {"ratio": ratio, "begin": begin, "own_sampled": self._own_sampled}
        return state

    def restore(self, state: dict[str, Any], trained_secs: float = math.inf) -> None:
        """Takes the counters of `state()`; of a run known to both, the larger ones.

        Counts that no training of `trained_secs` can have led to are left out, with a warning.

        Raises ConfigurationError, with nothing changed, if `state` is not such a state.
        """
        saved = SavedCounts.parse(state)
        most = min(most_after(trained_secs), MAX_COUNT)
        forgotten, kept = Counts(), collections.Counter()
        if max(saved.forgotten) <= MAX_TOTAL - MAX_COUNT and min(saved.forgotten) >= 0:
            forgotten = saved.forgotten
        elif any(saved.forgotten):
            _leave_out("processes that are over", saved.forgotten)
        for (role, task, run_id), run in reversed(saved.runs.items()):
            if not 0 <= min(run.counts) <= max(run.counts) <= most:
                _leave_out(f"{role[:64]} {task}", run.counts)
            elif not self._rules.has(role, task) or kept[role, task] >= KEPT_RUNS:
                forgotten = forgotten.plus(run.counts)
            else:
                kept[role, task] += 1
                self._take_up((role, task), run_id, run)
        self._total = self._total.plus(forgotten.beyond(self._forgotten))
        self._forgotten = self._forgotten.at_least(forgotten)
        self._restore_items(saved, most_after(trained_secs))

    def _take_up(self, key: tuple[str, int], run_id: int, saved: Run) -> None:
        """A run of a saved state, before those that are known already."""
        process = self._processes.setdefault(key, _Process())
        run = process.runs.pop(run_id, None) or Run()
        process.runs = {run_id: run, **process.runs}
        self._add(run, saved.counts)
        run.episodes = max(run.episodes, saved.episodes)

    def _restore_items(self, saved: SavedCounts, most: float) -> None:
        most = min(most, MAX_TOTAL)
        if not 0 <= saved.own_sampled <= most or max(map(abs, saved.begin)) > MAX_TOTAL:
            _leave_out("the learner itself", saved.own_sampled)
            return  # the counting for a ratio begins anew
        self._own_sampled = max(self._own_sampled, saved.own_sampled)
        self._begin, self._counted_for = saved.begin, saved.counted_for

    def _items(self) -> ItemCounts:
        total = self._total
        return ItemCounts(total.items_inserted, total.items_sampled + self._own_sampled)

    def _new_process(self) -> _Process:
        if len(self._processes) >= MAX_PROCESSES and self._rules.replicas is None:
            raise TooManyRunsError(f"{MAX_PROCESSES} processes have reported; no more are counted")
        return _Process()

    @staticmethod
    def _replaceable(process: _Process) -> int | None:
        """The run to be forgotten for a new one; None while there is room."""
        if len(process.runs) < KEPT_RUNS:
            return None
        run_id, run = next(iter(process.runs.items()))
        silent_secs = time.monotonic() - run.seen_secs
        if silent_secs < SILENT_SECS:
            raise TooManyRunsError(
                f"{KEPT_RUNS} runs of this process have reported within {SILENT_SECS:g} s; try "
                f"again in {SILENT_SECS - silent_secs:.0f} s"
            )
        return run_id

    def _add(self, run: Run, counts: Counts) -> None:
        self._total = self._total.plus(counts.beyond(run.counts))
        run.counts = run.counts.at_least(counts)

    def _add_episodes(self, run: Run, episodes: training_pb2.Episodes) -> None:
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

    def _add_evaluation(self, run: Run, evaluation: Evaluation) -> None:
        if evaluation == run.evaluation:
            return
        run.evaluation = self.last_evaluation = evaluation
        self._evaluations.append(evaluation)


def _leave_out(whose: str, counts: object) -> None:
    _LOG.error("THE CHECKPOINT HAS ABSURD COUNTS of %s: %s; they are left out", whose, counts)
