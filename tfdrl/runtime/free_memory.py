"""Free memory goes back to the system: the C library alone would keep it, for days of training.

glibc gives threads arenas of their own, up to eight for each core. What one thread frees there
serves few others, and pages that are free in the middle of an arena stay with the process.
"""

from __future__ import annotations

import ctypes
import threading
import time

_PERIOD_SECS = 30.0


def give_back_free_memory(period_secs: float = _PERIOD_SECS) -> None:
    """From now on, in this process: all whole pages that are free, again and again.

    It takes some milliseconds each time, during which threads that allocate may wait. Does
    nothing where the C library is not glibc.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "malloc_trim"):
        return

    def trim_for_ever() -> None:
        while True:
            time.sleep(period_secs)
            library.malloc_trim(0)

    threading.Thread(target=trim_for_ever, name="memory", daemon=True).start()
