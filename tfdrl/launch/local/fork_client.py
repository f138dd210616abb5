"""The launcher's end of a fork server (tfdrl.launch.local.fork_server), and what it forks.

On the socket between them travels, from the launcher, for each role

    8 bytes, little-endian: the size of the rest; with it, as files: the log, the read end of one
        pipe, and the write end of another
    JSON: module, arguments, environment, directory, title

and back, each on a line, JSON: {"importing": name}, {"ready": true} or {"unfit": why}, and then
{"pid": process id} or {"error": why}. The role waits for one byte in its pipe: what the launcher
does not know of must not run. In the other one it says a byte when it leaves with exit code 0: one
that ends so without it has not finished, something in it has called `exit(0)`.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import IO, Protocol

from tfdrl.launch.process import has_ended, state_of

_PR_SET_CHILD_SUBREAPER = 36
#: Of TensorFlow, on a slow disk.
_IMPORT_SECS = 300.0
#: Meanwhile the launcher is deaf.
_FORK_SECS = 10.0
#: A fork server that somebody stops (SIGSTOP) is waited for, and then replaced.
_STOPPED_SECS = 15.0
_CLOSE_SECS = 1.0
_MAX_LINE_BYTES = 1 << 16


def start_afresh(
    command: Sequence[str],
    log: IO[bytes],
    environment: Mapping[str, str],
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen:
    """Starts a command that writes to `log`, in a session of its own."""
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        start_new_session=True,  # the terminal's Ctrl-C reaches the launcher only
        pass_fds=pass_fds,
    )


class Child(Protocol):
    """A child of this process: `subprocess.Popen`, or `ForkedProcess`."""

    pid: int

    def wait(self) -> int: ...


class ForkedProcess:
    """A child of this process that another process has forked for it.

    Args:
      pid: its process id.
      said: the pipe in which it says that it leaves; None if it need not.
    """

    def __init__(self, pid: int, said: IO[bytes] | None = None):
        if pid <= 0:  # which would mean a whole group to kill
            raise ValueError(f"{pid} is no process id")
        self.pid, self._said = pid, said

    def has_left(self) -> bool:
        """Whether it said that it leaves; ask once, after its end."""
        if self._said is None:
            return True
        with self._said:
            return bool(self._said.read(1))

    def wait(self) -> int:
        """Waits for its end; returns its exit code, negative for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class ForkServerError(Exception):
    """A fork server that can fork nothing (any more)."""

    def __init__(self, why: str, worth_another: bool = True):
        super().__init__(why)
        self.worth_another = worth_another


def start_fork_server(
    channel: socket.socket,
    preload: Sequence[str],
    log: IO[bytes],
    environment: Mapping[str, str],
    quiet: bool,
) -> Child:
    """Starts the process of a fork server, which talks on `channel`."""
    command = [sys.executable, "-m", "tfdrl.launch.local.fork_server"]
    command += [f"--root_dir={pathlib.Path(log.name).parents[1]}", f"--socket={channel.fileno()}"]
    command += ["--quiet"] * quiet + [f"--preload={module}" for module in preload]
    return start_afresh(command, log, environment, [channel.fileno()])


class ForkServer:
    """The launcher's end of one fork server.

    Args:
      preload: modules that it imports, in this order.
      log: file that it appends its own output to.
      environment: of the fork server; that of a role comes with the role.
      quiet: libraries keep their start-up messages to themselves.
      may_die: whether there will be another one if this one dies.
    """

    def __init__(
        self,
        preload: Sequence[str],
        log: pathlib.Path,
        environment: Mapping[str, str],
        quiet: bool,
        may_die: bool = True,
    ):
        self._arguments = preload, log, environment, quiet
        self._may_die, self.log = may_die, log
        self.doing = "starting Python"
        self._received = b""
        self._is_ready = False
        self._start_secs = time.monotonic()
        self._stopped_secs: float | None = None  # since when it has been
        log.parent.mkdir(parents=True, exist_ok=True)
        self._channel, theirs = socket.socketpair()
        with theirs, log.open("ab") as file:
            self._process = start_fork_server(theirs, preload, file, environment, quiet)

    def again(self) -> ForkServer | None:
        """Another one like it; None for the second."""
        return ForkServer(*self._arguments, may_die=False) if self._may_die else None

    def is_ready(self) -> bool:
        """Whether it can fork now. Raises ForkServerError if it never will."""
        while (words := self._next(0.0)) is not None:
            self._take(words)
        if not self._is_ready and time.monotonic() > self._start_secs + _IMPORT_SECS:
            words = f"has not imported everything after {_IMPORT_SECS:g} s"
            raise ForkServerError(words, worth_another=False)
        return self._is_ready and not self._is_stopped()

    def fork(
        self,
        title: str,
        module: str,
        arguments: Sequence[str],
        log: IO[bytes],
        environment: Mapping[str, str],
        directory: str | os.PathLike = "",
    ) -> ForkedProcess:
        """Returns a new child of this process that calls the module's `console()`.

        Args:
          title: its name in `ps`.
          module: as `python -m` takes it.
          arguments: of its command line.
          log: of its output.
          environment: its variables.
          directory: its working directory; this process's if empty.

        Raises ForkServerError.
        """
        request = {
            "module": module,
            "arguments": list(arguments),
            "environment": dict(environment),
            "directory": str(directory) or os.getcwd(),
            "title": title,
        }
        data = json.dumps(request).encode()
        read_end, write_end = os.pipe()
        heard, said = os.pipe()
        os.set_blocking(heard, False)
        try:
            with _adopting():
                pid = self._ask(data, [log.fileno(), read_end, said])
            os.write(write_end, b"g")
            return ForkedProcess(pid, os.fdopen(os.dup(heard), "rb", buffering=0))
        finally:
            for file in (read_end, write_end, heard, said):
                os.close(file)

    def close(self) -> None:
        """Ends it. What it has forked goes on."""
        self._channel.close()
        deadline_secs = time.monotonic() + _CLOSE_SECS
        while time.monotonic() < deadline_secs and not has_ended(self._process.pid):
            time.sleep(0.02)
        if not has_ended(self._process.pid):
            os.kill(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _ask(self, data: bytes, files: Sequence[int]) -> int:
        try:
            self._channel.settimeout(_FORK_SECS)
            socket.send_fds(self._channel, [len(data).to_bytes(8, "little")], files)
            self._channel.sendall(data)
        except OSError as error:
            raise ForkServerError(f"takes no requests ({error})") from None
        words = self._next(_FORK_SECS)
        if words is None:
            raise ForkServerError(f"has not forked within {_FORK_SECS:g} s")
        if "pid" not in words:
            raise ForkServerError(f"could not fork: {words.get('error', words)}")
        return int(words["pid"])

    def _is_stopped(self) -> bool:
        """Whether it would answer nothing now. Raises ForkServerError once it takes too long."""
        if state_of(self._process.pid) != "T":
            self._stopped_secs = None
            return False
        now_secs = time.monotonic()
        self._stopped_secs = self._stopped_secs or now_secs
        if now_secs > self._stopped_secs + _STOPPED_SECS:
            raise ForkServerError(f"has been stopped (SIGSTOP) for {_STOPPED_SECS:g} s")
        return True

    def _take(self, words: Mapping[str, str | bool]) -> None:
        if "unfit" in words:
            raise ForkServerError(f"is of no use: {words['unfit']}", worth_another=False)
        if "importing" in words:
            self.doing = f"importing {words['importing']}"
        elif "ready" in words:
            self._is_ready, self.doing = True, ""

    def _next(self, limit_secs: float) -> dict | None:
        """The next line that it wrote; None if there is none in time. Raises ForkServerError."""
        deadline_secs = time.monotonic() + limit_secs
        while b"\n" not in self._received:
            self._channel.settimeout(max(deadline_secs - time.monotonic(), 0.0))
            try:
                part = self._channel.recv(4096)
            except (BlockingIOError, socket.timeout):
                return None
            except OSError as error:
                raise ForkServerError(f"is gone ({error})") from None
            self._received += part
            if not part or len(self._received) > _MAX_LINE_BYTES:
                raise ForkServerError("died" if not part else "says nonsense")
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)


@contextlib.contextmanager
def _adopting():
    """Meanwhile the orphans of this process's descendants become its own children."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise ForkServerError(f"cannot be used: {os.strerror(ctypes.get_errno())}", False)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
