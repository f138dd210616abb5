"""Threads that the system's tools (top, ps, /proc) call by the names that Python knows."""

from __future__ import annotations

import ctypes
import sys
import threading

#: Bytes of a name that Linux keeps.
LENGTH = 15
_PR_SET_NAME = 15


def show_thread_names() -> None:
    """From now on each thread of `threading` bears its name outside of Python, too; on Linux."""
    if sys.platform == "linux":
        prctl = ctypes.CDLL(None).prctl

        def name_it(*unused: object) -> None:  # at the first call that a new thread makes
            sys.setprofile(None)
            prctl(_PR_SET_NAME, threading.current_thread().name.encode()[:LENGTH], 0, 0, 0)

        threading.setprofile(name_it)
