"""The process that works for a Python program: how it is started, and what it tells."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from tfdrl.errors import TfdrlError
from tfdrl.launch import exits, process

#: How long a process that was told to stop may take: it may have much to write to disk.
STOP_SECS = 900.0
_POLL_SECS = 0.2
_LAST_LINES = 15
#: What waits for a reader that is not there any more.
_MOST_BYTES = 1 << 16


class Sender:
    """The end of the process that works; what the other does not read in time, it does not get.

    Args:
      descriptor: of a pipe.
    """

    def __init__(self, descriptor: int):
        self._descriptor, self._waiting = descriptor, b""
        os.set_blocking(descriptor, False)

    def offer(self, kind: str, value: Any) -> None:
        """Sends what a later message will replace, unless too much waits already."""
        if len(self._waiting) < _MOST_BYTES:
            self._waiting += _line(kind, value)
        self._write()

    def send(self, kind: str, value: Any) -> None:
        """Sends what must arrive; waits for a reader."""
        self._waiting += _line(kind, value)
        os.set_blocking(self._descriptor, True)
        while self._waiting and self._write():
            pass
        os.set_blocking(self._descriptor, False)

    def _write(self) -> bool:
        try:
            self._waiting = self._waiting[os.write(self._descriptor, self._waiting) :]
        except BlockingIOError:
            return False
        except OSError:  # nobody reads any more; the kernel tells this process to stop
            self._waiting = b""
        return True


def _line(kind: str, value: Any) -> bytes:
    return json.dumps([kind, value]).encode() + b"\n"


class Event(NamedTuple):
    """A line that the process has printed (kind "line"), or a message of its `Sender`."""

    kind: str
    value: Any


class Worker:
    """A process that does one thing for this one, which may be of many threads.

    It has a session of its own: Ctrl-C is for its owner, who tells it to stop.

    Args:
      module: run as `python -m`; its arguments are a descriptor for its `Sender`, and the request.
      request: of JSON.
      say: takes each line that it prints.

    Attributes:
      results: its messages by kind, the last of each.
    """

    def __init__(self, module: str, request: Any, say: Callable[[str], None]):
        self.results: dict[str, Any] = {}
        self._say, self._last = say, deque(maxlen=_LAST_LINES)
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        read_end, write_end = os.pipe()
        command = [sys.executable, "-m", module, str(write_end), json.dumps(request)]
        try:
            self._popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=_environment(),
                pass_fds=[write_end],
                start_new_session=True,
            )
        finally:
            os.close(write_end)
        self._readers = [
            threading.Thread(target=self._read, args=(source,), daemon=True)
            for source in (self._popen.stdout, open(read_end, "rb"))  # noqa: SIM115
        ]
        for reader in self._readers:
            reader.start()

    def follow(self, notice: Callable[[str, Any], None] = lambda kind, value: None) -> int:
        """Says what it prints, until its end; returns its exit code.

        Args:
          notice: is called with each message's kind and value; of those that have come meanwhile,
            with the last of each kind.
        """
        while self._popen.poll() is None:
            self._take(_POLL_SECS, notice)
        for reader in self._readers:
            reader.join(_POLL_SECS)  # unless something that it has left behind holds the pipe
        self._take(0.0, notice)
        return self._popen.returncode

    def ask_to_stop(self) -> None:
        """Asks it to end with all that it has started; the second time, at once."""
        with contextlib.suppress(ProcessLookupError):
            self._popen.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Asks it to end, and waits for that; Ctrl-C meanwhile ends it at once."""
        self.ask_to_stop()
        deadline_secs = time.monotonic() + STOP_SECS
        while self._popen.poll() is None:
            if time.monotonic() > deadline_secs:
                self._say(f"it did not end within {STOP_SECS:g} s of being told to: killing it")
                self._popen.kill()  # its roles end with it
            try:
                self._take(_POLL_SECS)
            except KeyboardInterrupt:
                self.ask_to_stop()
        self.follow()

    def failure(self) -> TfdrlError:
        """The error for an end of which it has told nothing."""
        how, last = exits.describe(self._popen.returncode), "\n".join(self._last)
        return TfdrlError(f"{' '.join(self._popen.args[1:3])} ended ({how}):\n{last}")

    def _take(self, wait_secs: float, notice: Callable = lambda kind, value: None) -> None:
        """Takes what has come, or comes in so many seconds."""
        told = {}
        with contextlib.suppress(queue.Empty):
            event = self._events.get(timeout=wait_secs)
            while True:
                if event.kind == "line":
                    self._last.append(event.value)
                    self._say(event.value)
                else:
                    told[event.kind] = event.value
                event = self._events.get_nowait()
        self.results.update(told)
        for kind, value in told.items():
            notice(kind, value)

    def _read(self, source) -> None:
        is_output = source is self._popen.stdout
        with source:
            for line in source:
                if is_output:
                    text = line.decode("utf-8", "replace").rstrip("\n")
                    self._events.put(Event("line", text))
                elif line.endswith(b"\n"):  # not what a kill has cut short
                    self._events.put(Event(*json.loads(line)))


def _environment() -> dict[str, str]:
    """The child's: it finds the modules that this process finds, and ends with it."""
    paths = [os.path.abspath(entry or ".") for entry in sys.path if isinstance(entry, str)]
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONIOENCODING": "utf-8",
        "PYTHONUNBUFFERED": "1",
        process.LAUNCHER_VARIABLE: str(os.getpid()),
    }
