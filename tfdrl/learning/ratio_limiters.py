"""Who is ahead of the replay ratio waits: an actor before its next block, a learner before a call.

Each decides for itself, from the counts that all of them report to whoever counts for the run. The
time that is waited here is told apart from `waiting_share`, which is for data: a role that waits
for the ratio is the faster one, and is meant to wait.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable

from tfdrl.acting.run_connection import RunConnection
from tfdrl.learning.session import LearnerSession
from tfdrl.replay.client import ReplayInfo
from tfdrl.replay.replay_ratio import ReplayRatio, estimated, held_ratio, of_tables
from tfdrl.runtime.metrics import Every, WaitingClock
from tfdrl.topology import Context
from tfdrl.types import ItemCounts

_WARNING_SECS = 10.0
_POLL_SECS = 0.01
_TRY_SECS = 0.1
_ASK_SECS = 1.0
#: What is reported without waiting for the next second: such a part of the tolerance.
_SOON = 4


def report_period_secs(replicas: int) -> float:
    """Between two reports of one that waits: a hundred a second in all, if not one of each."""
    return min(max(0.01 * replicas, 0.1), 1.0)


class ActorLimiter:
    """Makes an actor wait while all actors together are too far ahead of the learner.

    Args:
      ratio: to be held; None: never waits, and counts only.
      connection: to whoever counts for the run.
      replay: the server that this actor fills. One that holds too little to be sampled, such as a
        server that came back empty, is filled whatever was counted before: else the learner would
        wait for items, and the actors for the learner.
      context: of the actor.
      servers: over which the actors are spread evenly.
    """

    def __init__(
        self,
        ratio: ReplayRatio | None,
        connection: RunConnection,
        replay: ReplayInfo,
        context: Context,
        servers: int = 1,
    ):
        self._ratio, self._connection, self._replay = ratio, connection, replay
        self._fillers = -(-context.replicas // servers)
        self._replicas, self._stop = context.replicas, context.stop
        self._report_is_due = Every(report_period_secs(context.replicas))
        self._asking_is_due = Every(_ASK_SECS)
        self._filled_up_to = 0  # own items that a replay with too few of them has room for
        self._waiting = WaitingClock()

    def wait(self, items: int, tick: Callable[[], None]) -> None:
        """Returns when another block may be inserted, or the actor should stop.

        Args:
          items: that this actor has inserted so far.
          tick: called again and again while waiting: reports, and raises if the
            connection has failed.
        """
        self._connection.count_items(ItemCounts(items, 0))
        if self._ratio is None:
            return
        unreported = self._replicas * (items - self._connection.items.reported.inserted)
        if _SOON * unreported >= self._ratio.tolerance_items and self._report_is_due():
            self._connection.request_report()
        warning_is_due = Every(_WARNING_SECS)
        while not (self._stop.is_set() or self._may_insert(items)):
            if self._report_is_due():
                self._connection.request_report()
            with self._waiting:
                self._connection.wait_for_reply(_TRY_SECS)
            tick()
            if warning_is_due():
                self._say_why(items)

    def counters(self) -> dict[str, float]:
        """What an actor reports of its waiting."""
        if self._ratio is None:
            return {}
        return {"actor/ratio_waiting_share": self._waiting.take_share()}

    def _counts(self, items: int) -> ItemCounts:
        totals, reported, before = self._connection.items
        counted = reported.inserted, before.inserted
        inserted = estimated(totals.inserted, items, *counted, self._replicas)
        return ItemCounts(inserted, totals.sampled)

    def _may_insert(self, items: int) -> bool:
        if self._ratio.allows_inserting(self._counts(items)) or items < self._filled_up_to:
            return True
        if self._asking_is_due():
            table = self._replay.table()
            if table is not None:
                missing = table.rate_limiter_info.min_size_to_sample - table.current_size
                self._filled_up_to = items + -(-missing // self._fillers)
        return items < self._filled_up_to

    def _say_why(self, items: int) -> None:
        ahead = self._ratio.ahead_items(self._counts(items))
        logging.warning(
            "waiting for the learner: the actors are %.0f items ahead of the replay ratio %g, %d "
            "are allowed",
            ahead,
            self._ratio.ratio,
            self._ratio.tolerance_items,
        )


class LearnerLimiter:
    """Makes a learner wait while it has sampled too much for what the actors inserted.

    Args:
      ratio: to be held; None: never waits.
      counts: `counts() -> ItemCounts` of the run.
      min_size: items before the first is sampled.
      stop: ends every wait.
      ask: called again and again while waiting, so that the counts become newer.

    Attributes:
      counts: as given.
    """

    def __init__(
        self,
        ratio: ReplayRatio | None,
        counts: Callable[[], ItemCounts],
        min_size: int,
        stop: threading.Event,
        ask: Callable[[], None] = lambda: None,
    ):
        self._ratio, self.counts, self._ask = ratio, counts, ask
        self._min_size, self._stop = min_size, stop
        self._warning_is_due = Every(_WARNING_SECS)
        self._waiting = WaitingClock()

    def allows_training(self) -> bool:
        """Whether another call may be trained; waits for it a tenth of a second at most."""
        if self._ratio is None or self._ratio.allows_training(self.counts()):
            self._warning_is_due = Every(_WARNING_SECS)
            return True
        with self._waiting:
            for _ in range(round(_TRY_SECS / _POLL_SECS)):
                self._ask()
                if self._stop.wait(_POLL_SECS):
                    return False
                if self._ratio.allows_training(self.counts()):
                    return True
        if self._warning_is_due():
            self._say_why()
        return False

    def metrics(self) -> dict[str, float]:
        """The ratio that is held (see `held_ratio`), the one that is set, and the waiting."""
        counts = self.counts()
        if self._ratio is None:
            held = held_ratio(counts, self._min_size)
            return {} if held is None else {"learner/replay_ratio": held}
        values = {
            "learner/replay_ratio_set": self._ratio.ratio,
            "learner/ratio_waiting_share": self._waiting.take_share(),
        }
        held = held_ratio(counts, self._min_size, self._ratio.tolerance_items)
        return values if held is None else {**values, "learner/replay_ratio": held}

    def _say_why(self) -> None:
        call_items = self._ratio.samples_per_call / self._ratio.ratio
        behind = call_items - self._ratio.ahead_items(self.counts())
        logging.warning(
            "the learner waits for actors: after its next call they would be %.0f items behind the "
            "replay ratio %g, %d are allowed: are they there, and fast enough?",
            behind,
            self._ratio.ratio,
            self._ratio.tolerance_items,
        )


def of_session(
    config, scope: str, samples_per_call: int, table, session: LearnerSession, stop
) -> LearnerLimiter:
    """The limiter of a learner that counts for the run itself.

    Where a checkpoint has counts for another ratio, or none, the counting begins anew, at the
    centre: as if the actors had inserted just what lets learning begin, or what there is of it.

    Args:
      config, scope: as `replay_ratio.of_tables` takes them.
      samples_per_call: items of one call.
      table: Reverb's TableInfo; None if the learner was told to stop before it knew.
      session: of the learner.
      stop: ends every wait.

    Raises:
      ConfigurationError: the table can never be sampled at this ratio.
    """
    service = session.service
    ratio = of_tables(config, scope, samples_per_call, [table])
    min_size = 0 if table is None else table.rate_limiter_info.min_size_to_sample
    if table is not None:
        inserted = service.items().inserted
        if session.restored:
            inserted = min(table.current_size, min_size)
        if service.count_for_ratio(config.replay_ratio, inserted) and session.restored:
            logging.info("the checkpoint has no counts for this replay ratio; counting anew")
    return LearnerLimiter(ratio, service.items, min_size, stop)


class ReportedCounts:
    """The counts of the run for one of several learners, which reports its own samples.

    Args:
      connection: to whoever counts for the run.
      replicas: learners.
      soon: samples of all learners that are reported without waiting for the next second, so that
        actors do not wait for what was done already.
    """

    def __init__(self, connection: RunConnection, replicas: int, soon: float):
        self._connection, self._replicas, self._soon, self._own = connection, replicas, soon, 0
        self._report_is_due = Every(report_period_secs(replicas))

    def __call__(self) -> ItemCounts:
        """Items inserted as of the last report, and sampled, as far as one can know."""
        totals, reported, before = self._connection.items
        counted = reported.sampled, before.sampled
        return totals._replace(
            sampled=estimated(totals.sampled, self._own, *counted, self._replicas)
        )

    def add(self, samples: int) -> None:
        """This learner has trained on so many more."""
        self._own += samples
        self._connection.count_items(ItemCounts(0, self._own))
        if self._replicas * (self._own - self._connection.items.reported.sampled) >= self._soon:
            self.ask()

    def ask(self) -> None:
        """Reports soon, and so learns of newer counts."""
        if self._report_is_due():
            self._connection.request_report()


def of_connection(
    config, scope: str, tables, connection: RunConnection, context: Context
) -> LearnerLimiter:
    """The limiter of one of several learners, whose `counts` are `ReportedCounts`.

    Args:
      config, scope, tables: as `replay_ratio.of_tables` takes them; a call trains on
        `config.batch_size` items.
      connection: to the coordinator.
      context: of the learner.

    Raises:
      ConfigurationError: the tables can never be sampled at this ratio.
    """
    ratio = of_tables(config, scope, config.batch_size, tables)
    min_size = sum(t.rate_limiter_info.min_size_to_sample for t in tables if t is not None)
    soon = math.inf if ratio is None else ratio.ratio * ratio.tolerance_items / _SOON
    counts = ReportedCounts(connection, context.replicas, soon)
    return LearnerLimiter(ratio, counts, min_size, context.stop, counts.ask)
