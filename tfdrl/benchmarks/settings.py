"""The settings of one benchmark, and what its processes and its user are told."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

from tfdrl.benchmarks.measuring import Rounds


class BenchmarkSettings(NamedTuple):
    """What is measured and for how long.

    Attributes:
      gin_files, gin_bindings: as for training.
      parts: some of the letters a to e, and s.
      secs: window of part e.
      rounds: of the other parts.
    """

    gin_files: Sequence[str]
    gin_bindings: Sequence[str]
    parts: str
    secs: float
    rounds: Rounds


def gin_arguments(settings: BenchmarkSettings, more: Sequence[str]) -> list[str]:
    """The flags of a process of the same configuration, with more bindings."""
    bindings = [*settings.gin_bindings, *more]
    return [f"--gin_file={name}" for name in settings.gin_files] + [
        f"--gin_bindings={binding}" for binding in bindings
    ]


def say(text: str) -> None:
    """Tells the user what is done now."""
    print(text, file=sys.stderr, flush=True)
