"""The page that every training leaves when it ends. Loads what it needs only then."""

from __future__ import annotations

import pathlib
import sys
from typing import TYPE_CHECKING

from tfdrl.errors import EXIT_CONFIGURATION

if TYPE_CHECKING:
    from tfdrl.launch.status import RunStatus
    from tfdrl.launch.supervisor import RunEnd


class ReportWriter:
    """A `launch.observer.Observer` that writes report.html when the run has ended."""

    def begin(self, root_dir: pathlib.Path) -> None:
        """Remembers where."""
        self._root_dir = root_dir

    def see(self, snapshot: RunStatus, elapsed_secs: float) -> None:
        """Nothing: everything is read at the end."""

    def end(self, ending: RunEnd) -> None:
        """Writes it, unless the settings were wrong and nothing ran."""
        if ending.exit_code != EXIT_CONFIGURATION:
            write(self._root_dir)


def write(root_dir: pathlib.Path) -> None:
    """Writes root_dir/report.html of a run that has ended, and says where it is.

    Why it could not is said, and changes nothing of how the run ended.
    """
    try:
        from tfdrl.reports import page, run

        path = root_dir / page.FILE
        # Its own launcher, which calls this, still has its lock.
        page.write(path, page.text([run.read(root_dir)._replace(goes_on=False)]))
        print(f"report              {path}", flush=True)
    except Exception as error:
        print(f"no report: {type(error).__name__}: {error}", file=sys.stderr)
