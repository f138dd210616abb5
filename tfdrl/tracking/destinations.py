"""What a tracker must offer so that runs can be sent there."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from tfdrl.tracking.points import Point


class RunToTrack(NamedTuple):
    """What is known of a run before its points.

    name      as the tracker shows it
    settings  what its gin files bind
    config    the file that has them
    """

    name: str
    settings: Mapping[str, str]
    config: pathlib.Path


class End(NamedTuple):
    """How a run ended.

    reason  in words; "" if no end is written, as after a kill
    failed  whether its exit code was not 0
    result  of result.json: numbers and texts by name, such as "evaluation/mean"
    secs    Unix time of the result
    report  the page about it, if there is one
    """

    reason: str
    failed: bool
    result: Mapping[str, float | str]
    secs: float
    report: pathlib.Path | None


class Destination(Protocol):
    """A tracker. Each call raises UnavailableError if it does not answer in time.

    Attributes:
      kind: its name on the command line.
      place: where it is, in words that are the same for the same place only.
    """

    kind: str
    place: str

    def open(self, run_id: str, run: RunToTrack, points: int) -> str:
        """Goes on with run `run_id`, of which so many points were sent; "": begins one.

        Returns its id. Raises ConfigurationError if it is not there any more.
        """

    def add(self, points: Sequence[Point]) -> None:
        """Sends points; where it raises, some may have arrived."""

    def missing(self, points: Sequence[Point]) -> list[Point]:
        """Those of a batch, whose sending was cut, that have not arrived."""

    def close(self, end: End | None) -> None:
        """No more points for now: of an ended run its result; None of one that goes on."""
