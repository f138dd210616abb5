"""What a checkpoint holds of a `report_ledger.Ledger`, read from JSON."""

from __future__ import annotations

import dataclasses
import time
from typing import Any, NamedTuple

from tfdrl.errors import ConfigurationError
from tfdrl.rpc.growth_limits import Counts
from tfdrl.rpc.run_messages import Evaluation
from tfdrl.types import ItemCounts


@dataclasses.dataclass
class Run:
    """What is known of one life of one process: all counters are cumulative."""

    counts: Counts = Counts()  # noqa: RUF009  (immutable)
    episodes: int = 0
    evaluation: Evaluation | None = None
    seen_secs: float = dataclasses.field(default_factory=time.monotonic)


class SavedCounts(NamedTuple):
    """A state of a ledger, whose numbers may be any.

    runs         by role, task and run id, in the order of their last reports
    forgotten    sum over the runs that are not among them
    counted_for  (ratio,) that items are counted for; None: for nothing yet
    begin        items that are not counted for it
    own_sampled  items that the ledger's owner trained on
    """

    runs: dict[tuple[str, int, int], Run]
    forgotten: Counts
    counted_for: tuple[float | None] | None
    begin: ItemCounts
    own_sampled: int

    @classmethod
    def parse(cls, state: dict[str, Any]) -> SavedCounts:
        """Reads what `Ledger.state` returned. Raises ConfigurationError if it is no such state."""
        try:
            items = state.get("items", {})  # none in a state of an older version
            return cls(
                dict(_run(*row) for row in state["runs"]),
                Counts(*map(int, state.get("forgotten", ()))),
                (items["ratio"],) if items else None,
                ItemCounts(*(int(count) for count in items.get("begin", (0, 0)))),
                int(items.get("own_sampled", 0)),
            )
        except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
            raise ConfigurationError(
                "the counters of the checkpoint cannot be read "
                f"({type(error).__name__}: {error}); expected what TrainingServer.state() returned"
            ) from None


def _run(role, task, run_id, frames, episodes, inserted=0, sampled=0):
    """Of a row of `Ledger.state`; those of older versions end before the items."""
    counts = Counts(int(frames), int(inserted), int(sampled))
    return (str(role), int(task), int(run_id)), Run(counts, int(episodes))
