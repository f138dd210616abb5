"""How much of shared cores a role gets beside the others."""

from __future__ import annotations

import logging
import os
import pathlib
import random
import time

_AUTOGROUP = pathlib.Path("/proc/self/autogroup")
_PATIENCE_SECS = 30.0
_RETRY_SECS = 0.1


def lower(niceness: int) -> None:
    """Makes this process give way, by 0 to 19 more than now, to those with a lower niceness.

    Where Linux puts each session into an "autogroup" (sched(7); the default of most distributions),
    niceness counts within a session only, and each role that the launcher starts leads one of its
    own: then it is given to the group as well, with what a `nice tfdrl-train` was started with. A
    role typed in a terminal shares the session of the shell, which stays as it is.
    """
    niceness = os.nice(niceness)
    if not niceness or os.getsid(0) != os.getpid() or not _AUTOGROUP.exists():
        return
    try:
        _set_autogroup(niceness)
    except OSError as error:
        logging.warning(
            "niceness %d counts within this role's session only: %s cannot be written: %s",
            *(niceness, _AUTOGROUP, error.strerror),
        )


def _set_autogroup(niceness: int) -> None:
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
                    raise
            time.sleep(_RETRY_SECS * random.uniform(0.5, 1.5))
    finally:
        os.close(file)
