"""Unix time that nobody sets: the machine's at the start of the program, and what passed since.

For ages of data, which processes compare: a clock that is set back and forth under a run changes
none. Waits, rates and periods use `time.monotonic()`. Roles that are forked from one process share
its start; a process that starts on another machine, or anew, has that machine's time.
"""

from __future__ import annotations

import time

_START_SECS = time.time() - time.monotonic()


def unix_secs() -> float:
    """Seconds since 1970, as the clock had them when this module was imported."""
    return _START_SECS + time.monotonic()
