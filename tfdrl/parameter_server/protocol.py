"""What workers and parameter servers say to each other, and what a server holds. No TensorFlow."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np

#: What a push may come to.
ACCEPTED, CLOSED, OLD_EPOCH, NON_FINITE, STALE, DUPLICATE, OUTLIER = range(7)
VERDICTS = ("accepted", "closed", "old_epoch", "non_finite", "stale", "duplicate", "outlier")
#: Entries of `counts` after one for each verdict. A rollback sets UPDATES back, which Adam counts
#: by, and VERSION never.
VERSION, UPDATES, STEPS, STARTED, FINISHED, PULLS = range(len(VERDICTS), len(VERDICTS) + 6)
COUNTS = PULLS + 1
#: Ages are counted in buckets 0, 1, 2-3, 4-7, ... and 2^14 and more.
AGE_BUCKETS = 16
#: The gate: a push that arrives while a snapshot is taken is answered CLOSED, to be sent again.
OPEN, SHUT = 1, 0


class Header(NamedTuple):
    """What a push says of its gradient, <int64>[6] on the wire.

    epoch, version  of the parameters that it was computed from, on this shard
    steps           agent steps that it was computed from
    worker          number of the sender, for the barrier
    is_decided      1: another shard has decided that its age is acceptable
    verdict         why it is withheld, if it is: `withhold` counts it
    """

    epoch: int
    version: int
    steps: int = 0
    worker: int = 0
    is_decided: int = 0
    verdict: int = ACCEPTED


class State(NamedTuple):
    """What a shard answers, <int64>[4]: the verdict on a push, and what the parameters are."""

    verdict: int
    epoch: int
    version: int
    steps: int


@dataclasses.dataclass(frozen=True)
class Layout:
    """The variables of one shard.

    Attributes:
      task: number of the parameter server.
      names: of the variables, for people.
      shapes: in the same order.
      barrier: 0 for asynchronous updates; N: an update is the mean of one gradient of each of N
        workers (synchronous, A2C).
      moments: numbers of elements of the running statistics <float64>, to which pushes add.
    """

    task: int
    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    barrier: int = 0
    moments: tuple[int, ...] = ()

    @property
    def sizes(self) -> list[int]:
        """Numbers of elements."""
        return [int(np.prod(shape)) for shape in self.shapes]

    @property
    def nbytes(self) -> int:
        """Of one copy of the parameters and moments."""
        return 4 * sum(self.sizes) + 8 * sum(self.moments)
