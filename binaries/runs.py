"""Lists the runs of a directory."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import flags

from tfdrl.errors import EXIT_OK
from tfdrl.launch import command_line
from tfdrl.launch.tools import runs

_DEFAULT = "runs"
_USAGE = """Lists the runs of directories: state, best return, frames, and the settings that differ.

  tfdrl runs
  tfdrl runs runs/impala-cartpole /shared/sweep"""


def _flags() -> flags.FlagValues:
    return flags.FlagValues()


def main(argv: Sequence[str]) -> int:
    """Parses `argv` (program name first) and prints; returns the exit code."""
    places = command_line.parse_arguments(_flags(), argv, _USAGE)
    places = places or [_DEFAULT]
    lines = [line for place in places for line in runs.find(place)]
    print("\n".join(runs.page(lines)) if lines else f"there is no run in {', '.join(places)}")
    return EXIT_OK


def console() -> None:
    """Entry point of the console script."""
    sys.exit(command_line.run("tfdrl runs", main, sys.argv))


if __name__ == "__main__":
    console()
