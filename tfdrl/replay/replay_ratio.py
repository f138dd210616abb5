"""The replay ratio: how often an item that is inserted is sampled, held whoever is the faster.

Reverb's `SampleToInsertRatio` states the same invariant, but blocks single inserts and samples
inside the server, and counts what a learner prefetches. Here it is whole blocks of an actor and
whole calls of a learner that wait, by counts that they report to each other anyway.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

from tfdrl.errors import ConfigurationError
from tfdrl.types import ItemCounts

#: Reverb's limits of a table that limits nothing; those that do are smaller.
_NO_LIMIT = 1e300


@dataclasses.dataclass(frozen=True)
class ReplayRatio:
    """Holds D = ratio * inserted - sampled between two bounds around its centre.

        a learner trains while  D - samples_per_call >= ratio * (min_size - tolerance_items)
        actors insert while     D                    <= ratio * (min_size + tolerance_items)

    So sampled / (inserted - min_size) stays near `ratio`. One of both may always go on, since
    samples_per_call <= 2 * ratio * tolerance_items: where the learner waits, D is below its bound
    by less than one call, hence at most at the actors'. An actor is asked before each block and
    not before each item, so that D passes the upper bound by a block of each actor at most, and by
    what all of them insert between two of their reports.

    Attributes:
      ratio: times that each item is sampled, on average.
      samples_per_call: items that one call of the learner trains on.
      min_size: items, over all tables, before the first is sampled.
      tolerance_items: how many items actors may be ahead of, or behind, the centre.
    """

    ratio: float
    samples_per_call: int
    min_size: int
    tolerance_items: int

    def difference(self, counts: ItemCounts) -> float:
        """D, in samples."""
        return self.ratio * counts.inserted - counts.sampled

    def allows_training(self, counts: ItemCounts) -> bool:
        """Whether the learner may train on the samples of one more call."""
        least = self.ratio * (self.min_size - self.tolerance_items)
        return self.difference(counts) - self.samples_per_call >= least

    def allows_inserting(self, counts: ItemCounts) -> bool:
        """Whether an actor may insert one more block."""
        most = self.ratio * (self.min_size + self.tolerance_items)
        return self.difference(counts) <= most

    def ahead_items(self, counts: ItemCounts) -> float:
        """How many items the actors are ahead of the centre; negative: behind it."""
        return self.difference(counts) / self.ratio - self.min_size


def held_ratio(counts: ItemCounts, min_size: int, tolerance_items: int = 0) -> float | None:
    """sampled / (inserted - min_size): the ratio since learning began, whatever was set.

    Over the whole run rather than a window: it is what an item's share of the training is, and a
    learner that was behind and catches up is seen to.

    Args:
      counts: of the run.
      min_size: items before the first is sampled.
      tolerance_items: before so many more it says little: None.
    """
    past = counts.inserted - min_size
    return counts.sampled / past if past > max(tolerance_items, 0) else None


def estimated(total: int, own: int, reported: int, reported_before: int, replicas: int) -> int:
    """A count over all replicas now, by one that was told `total` in reply to its last report.

    The others are taken to have counted, since they last reported, what this one has since its
    last report but one: theirs may be as old as that. Who stands still for two reports knows the
    total that was reported, so that an estimate that is too high holds nobody for ever.

    Args:
      total: over all replicas, as of this one's last report.
      own: this one's own count now.
      reported, reported_before: this one's count in its last report and in the one before it.
      replicas: how many count.
    """
    return total + (own - reported) + (replicas - 1) * (own - reported_before)


def check_settings(settings, scope: str) -> None:
    """Raises ConfigurationError for a ratio or a tolerance that no table could go with.

    Args:
      settings: of an architecture, with `replay_ratio` and `replay_ratio_tolerance_items`.
      scope: its name in gin, such as "apex".
    """
    ratio, tolerance = settings.replay_ratio, settings.replay_ratio_tolerance_items
    is_number = isinstance(ratio, (int, float)) and not isinstance(ratio, bool)
    if ratio is not None and not (is_number and 1e-6 <= ratio <= 1e6):
        raise ConfigurationError(
            f"{scope}.replay_ratio = {ratio} must be between 1e-6 and 1e6, or None for actors and "
            "learner that are not held to each other"
        )
    if tolerance is None:
        return
    if ratio is None:
        raise ConfigurationError(
            f"{scope}.replay_ratio_tolerance_items = {tolerance} without {scope}.replay_ratio: "
            "nothing is held to anything; set the ratio or leave out the tolerance"
        )
    if not tolerance >= 1:
        raise ConfigurationError(f"{scope}.replay_ratio_tolerance_items = {tolerance} must be >= 1")


def of_tables(settings, scope: str, samples_per_call: int, tables: Sequence) -> ReplayRatio | None:
    """The ratio that the settings ask for; None for none, or where no table is known.

    Args:
      settings: of an architecture, that `check_settings` has found sound.
      scope: its name in gin.
      samples_per_call: items of one call of the learner.
      tables: Reverb's TableInfo of each replay server; None of one that was not reached.

    Raises:
      ConfigurationError: the tables can never be sampled at this ratio; with the arithmetic.
    """
    ratio = settings.replay_ratio
    tables = [table for table in tables if table is not None]
    if ratio is None or not tables:
        return None
    min_size = sum(table.rate_limiter_info.min_size_to_sample for table in tables)
    max_size = sum(table.max_size for table in tables)
    tolerance = settings.replay_ratio_tolerance_items or min_size
    for table in tables:
        _check_limits_of_its_own(ratio, scope, table)
    if samples_per_call > 2 * ratio * tolerance:
        raise ConfigurationError(
            f"{scope}.replay_ratio = {ratio:g} with a tolerance of {tolerance:,} items can never "
            f"be held: one call of the learner takes {samples_per_call:,} samples (batch_size * "
            f"updates_per_call), but the learner and the actors may be apart by 2 * {ratio:g} * "
            f"{tolerance:,} = {2 * ratio * tolerance:,.0f} samples only, and would wait for each "
            f"other for ever; {scope}.replay_ratio_tolerance_items must be at least "
            f"{math.ceil(samples_per_call / (2 * ratio)):,}, or a call must take fewer samples"
        )
    if min_size + tolerance > max_size:
        raise ConfigurationError(
            f"{scope}.replay_ratio = {ratio:g}: actors may insert min_size + tolerance = "
            f"{min_size:,} + {tolerance:,} = {min_size + tolerance:,} items before they wait, but "
            f"the replay holds {max_size:,}: items would be removed before they are sampled; "
            f"raise replay_table.max_size, or set {scope}.replay_ratio_tolerance_items to at most "
            f"max_size - min_size = {max_size - min_size:,}"
        )
    return ReplayRatio(ratio, samples_per_call, min_size, tolerance)


def _check_limits_of_its_own(ratio: float, scope: str, table) -> None:
    limits = table.rate_limiter_info
    if limits.min_diff > -_NO_LIMIT or limits.max_diff < _NO_LIMIT:
        raise ConfigurationError(
            f"{scope}.replay_ratio = {ratio:g}, but the table {table.name!r} has a rate limiter of "
            f"its own, of {limits.samples_per_insert:g} samples for each insert: both would hold "
            "actors and learner to different counts; set replay_table.samples_per_insert = None"
        )
    if 0 < table.max_times_sampled < ratio:
        raise ConfigurationError(
            f"{scope}.replay_ratio = {ratio:g} can never be held: the table {table.name!r} removes "
            f"an item when it was sampled replay_table.max_times_sampled = "
            f"{table.max_times_sampled} times"
        )
