"""How much of shared cores a role gets beside the others."""

from __future__ import annotations

import contextlib
import os
import time

_AUTOGROUP = "/proc/self/autogroup"
_PATIENCE_SECS = 5.0
_RETRY_SECS = 0.05


def lower(niceness: int) -> None:
    """Makes this process give way, by 1 to 19, to those with a lower niceness.

    Where Linux puts each session into an "autogroup" (sched(7); the default of most distributions),
    niceness counts within a session only, and each role that the launcher starts leads one of its
    own: then it is given to the group as well. A role typed in a terminal shares the session of the
    shell, which stays as it is.
    """
    if not niceness:
        return
    os.nice(niceness)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(
            OSError
        ):  # no autogroups in this kernel, or /proc cannot be written
            _lower_autogroup(niceness)


def _lower_autogroup(niceness: int) -> None:
    """The kernel takes ten a second of all unprivileged processes together."""
    end_secs = time.monotonic() + _PATIENCE_SECS
    file = os.open(_AUTOGROUP, os.O_WRONLY)
    try:
        while True:
            try:
                os.write(file, str(niceness).encode())
                return
            except BlockingIOError:
                if time.monotonic() > end_secs:
                    return
            time.sleep(_RETRY_SECS)
    finally:
        os.close(file)
