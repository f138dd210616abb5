"""How a process ended, in words: its exit code, and the last lines of its log."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal

_TAIL_LINES = 15
_TAIL_BYTES = 64 << 10
START_MARKER = "==== tfdrl:"
_KERNEL_COUNTS = pathlib.Path("/proc/vmstat")


def describe(exit_code: int) -> str:
    """An exit code of `subprocess` in words: "exit code 1", "killed by SIGKILL"."""
    if exit_code >= 0:
        return f"exit code {exit_code}"
    with contextlib.suppress(ValueError):
        return f"killed by {signal.Signals(-exit_code).name}"
    return f"killed by signal {-exit_code}"


def out_of_memory_kills() -> int:
    """How many processes of this machine the kernel has killed for want of memory; 0 if unknown."""
    with contextlib.suppress(OSError, ValueError):
        for line in _KERNEL_COUNTS.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    return 0


def last_words(log: pathlib.Path, role: str) -> str:
    """What a role that ended with a sentence for the user said, without its name; "" if none."""
    prefix = f"tfdrl {role}: "
    said = [line for line in tail(log).splitlines() if line.startswith(prefix)]
    return said[-1][len(prefix) :] if said else ""


def tail(log: pathlib.Path, lines: int = _TAIL_LINES) -> str:
    """The last lines that the last process wrote to `log`."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(file.tell() - _TAIL_BYTES, 0))
        written = file.read().decode(errors="replace").split(START_MARKER)[-1]
        return "\n".join(written.splitlines()[1:][-lines:])
    return ""
