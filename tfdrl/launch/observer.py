"""Who is told of a run by its launcher, beside the terminal."""

from __future__ import annotations

import pathlib
from typing import Protocol

from tfdrl.launch.status import RunStatus
from tfdrl.launch.supervisor import RunEnd


class Observer(Protocol):
    """Is called by `run_program`, in its thread, and must not block."""

    def begin(self, root_dir: pathlib.Path) -> None:
        """The run has its directory, and starts."""

    def see(self, snapshot: RunStatus, elapsed_secs: float) -> None:
        """What is known so long after the start; some ten times a second."""

    def end(self, ending: RunEnd) -> None:
        """It has ended, and everything is written."""


class Nobody:
    """An `Observer` that does nothing."""

    def begin(self, root_dir: pathlib.Path) -> None:
        """Nothing."""

    def see(self, snapshot: RunStatus, elapsed_secs: float) -> None:
        """Nothing."""

    def end(self, ending: RunEnd) -> None:
        """Nothing."""
