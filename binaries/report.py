"""Writes report.html about runs: the architecture with their numbers on it, curves, findings."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from absl import flags

from tfdrl.errors import EXIT_OK, ConfigurationError
from tfdrl.launch import command_line

_USAGE = """Writes one self-contained page about runs: report.html.

  tfdrl-report runs/a                           of one run, into its directory
  tfdrl-report runs/a runs/b --output=ab.html   of several, side by side

Runs that have the same settings but for the seed are drawn as one, with intervals. A run that goes
on is drawn so far. Exit codes: 0 written, 2 a directory that is no run."""


def _flags() -> flags.FlagValues:
    values = flags.FlagValues()
    about = "File to write (default: report.html in the run's directory; of several, here)."
    flags.DEFINE_string("output", "", about, flag_values=values)
    return values


def main(argv: Sequence[str]) -> int:
    """Parses `argv` (program name first) and writes the page; returns the exit code."""
    values = _flags()
    given = command_line.parse_arguments(values, argv, _USAGE)
    if not given:
        raise ConfigurationError("which run? give directories, such as: tfdrl-report runs/a runs/b")
    from tfdrl.reports import page

    print(page.of_directories(given, values.output))
    return EXIT_OK


def console() -> None:
    """Entry point of the console script."""
    sys.exit(command_line.run("tfdrl report", main, sys.argv))


if __name__ == "__main__":
    console()
