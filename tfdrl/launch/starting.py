"""How the launcher starts the process of a role: afresh, or forked from one that has imported.

`FreshProcesses` runs the command. `ForkServers` asks a fork server (tfdrl.launch.fork_server) of
its own for a process that has imported TensorFlow already: one for the roles that need it, one for
those that must not have it. On the socket between them travels, from the launcher, for each role

    8 bytes, little-endian: the size of the rest; with it, as files: the log, and a pipe's read end
    JSON: module, arguments, environment, directory, title

and back, each on a line, JSON: {"importing": name}, {"ready": true} and {"pid": process id}. The
role waits for one byte in the pipe: what the launcher does not know of must not run.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import importlib.util
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import IO, Protocol

from tfdrl.topology import Program, Role

_PR_SET_CHILD_SUBREAPER = 36
#: Of TensorFlow, on a slow disk.
_IMPORT_SECS = 300.0
_FORK_SECS = 30.0
_MAX_LINE_BYTES = 1 << 16
#: Imported first; the parts of the roles would import them in any case.
_TENSORFLOW = ("tensorflow", "tf_agents", "reverb")
_LIGHT = ("gymnasium",)


class Started(Protocol):
    """A process that was started: `subprocess.Popen`, or `ForkedProcess`."""

    pid: int

    def wait(self) -> int: ...


class Starter(Protocol):
    """Starts processes."""

    def is_ready(self, role: Role) -> bool:
        """Whether `start` would start one at once; if not, ask again soon."""

    def start(
        self,
        role: Role,
        title: str,
        command: Sequence[str],
        log: IO[bytes],
        environment: Mapping[str, str],
    ) -> Started:
        """Starts a process, in a session of its own, that writes to `log`."""

    @property
    def doing(self) -> str:
        """What has to be done before it is ready, in words; "" if nothing."""

    def close(self) -> None:
        """Nothing is started any more. What was started goes on."""


class FreshProcesses:
    """Starts every process afresh."""

    doing = ""

    def is_ready(self, role: Role) -> bool:
        """Always."""
        return True

    def start(self, role, title, command, log, environment) -> subprocess.Popen:
        """As `Starter.start`."""
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=dict(environment),
            start_new_session=True,  # the terminal's Ctrl-C reaches the launcher only
        )

    def close(self) -> None:
        """Nothing to do."""


class ForkedProcess:
    """A child of this process that another process has forked for it."""

    def __init__(self, pid: int):
        self.pid = pid

    def wait(self) -> int:
        """Waits for its end; returns its exit code, negative for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


class ForkServers:
    """Starts processes by forking one that has imported what they need.

    A fork server that dies is started again once; after that, and where there can be none, roles
    start afresh, with a warning.

    Args:
      program: whose roles are started; says what is imported.
      modules: that the configuration names; those of tfdrl and TF-Agents are imported, too.
      logs: directory of the fork servers' own logs.
      environment: of the fork servers.
      quiet: libraries keep their start-up messages to themselves.
      notify: receives one line for the user.
    """

    def __init__(
        self,
        program: Program,
        modules: Iterable[str],
        logs: pathlib.Path,
        environment: Mapping[str, str],
        quiet: bool = True,
        notify: Callable[[str], None] = print,
    ):
        self._fresh, self._notify = FreshProcesses(), notify
        self._servers: dict[bool, _ForkServer | None] = {}
        for tensorflow in (False, True):
            roles = [role for role in program.roles if role.needs_tensorflow == tensorflow]
            if roles:
                preload = preloaded(roles, modules, tensorflow)
                log = logs / f"fork-server{'' if tensorflow else '-light'}.log"
                self._servers[tensorflow] = _ForkServer(preload, log, environment, quiet)

    def is_ready(self, role: Role) -> bool:
        """Whether the role's fork server has imported everything, or there is none."""
        server = self._servers.get(role.needs_tensorflow)
        try:
            return server is None or server.is_ready()
        except _BrokenError as error:
            self._replace(role.needs_tensorflow, server, error)
            return False

    def start(
        self,
        role: Role,
        title: str,
        command: Sequence[str],
        log: IO[bytes],
        environment: Mapping[str, str],
    ) -> Started:
        """As `Starter.start`; `command` is that of a module: python, "-m", module, arguments."""
        server = self._servers.get(role.needs_tensorflow)
        if server is not None:
            try:
                return ForkedProcess(server.fork(title, command[2:], log, environment))
            except _BrokenError as error:
                self._replace(role.needs_tensorflow, server, error)
        return self._fresh.start(role, title, command, log, environment)

    @property
    def doing(self) -> str:
        """What the fork servers import now."""
        doing = [s.doing for s in self._servers.values() if s is not None and s.doing]
        return ", ".join(dict.fromkeys(doing))

    def close(self) -> None:
        """Ends the fork servers; what they have forked goes on."""
        for server in self._servers.values():
            if server is not None:
                server.close()

    def _replace(self, tensorflow: bool, server: _ForkServer, error: _BrokenError) -> None:
        server.close()
        again = server.again() if error.worth_another else None
        self._servers[tensorflow] = again
        then = "starting it again" if again else "roles start afresh from here on, which is slower"
        self._notify(f"WARNING: the fork server {error} (its log: {server.log}); {then}")


def preloaded(roles: Iterable[Role], modules: Iterable[str], tensorflow: bool) -> list[str]:
    """The modules that roles import, in the order of importing: only tfdrl's and TF-Agents'.

    A user's own are imported by the roles themselves: they may do anything at import.

    Args:
      roles: of one kind.
      modules: that the configuration names.
      tensorflow: whether those roles need TensorFlow; else it is not reached.
    """
    from tfdrl.configuration import source

    found = list(_LIGHT)
    found += _TENSORFLOW if tensorflow else ()
    found.append("tfdrl.launch.role")
    for role in roles:
        module, _, function = role.function.partition(":")
        found += _imports_of(module, function)
    found += modules
    own = [name for name in dict.fromkeys(found) if name.split(".")[0] in ("tfdrl", "tf_agents")]
    if not tensorflow:
        own = [name for name in own if not source.loads_tensorflow(name)]
    heads = [*_LIGHT, *(_TENSORFLOW if tensorflow else ())]
    return list(dict.fromkeys([*heads, *own]))


def _imports_of(module: str, function: str) -> list[str]:
    """`module`, and the modules that its `function` imports: the role's parts list."""
    spec = importlib.util.find_spec(module) if module.split(".")[0] == "tfdrl" else None
    if spec is None or not spec.origin:
        return []
    tree = ast.parse(pathlib.Path(spec.origin).read_text())
    # What a role's function calls in its own file imports parts, too.
    nodes = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    found, todo, seen = [module], [function], set()
    while todo:
        name = todo.pop()
        if name not in nodes or name in seen:
            continue
        seen.add(name)
        for node in ast.walk(nodes[name]):
            if isinstance(node, ast.ImportFrom) and node.module:
                found += _modules_of(node.module, [alias.name for alias in node.names])
            elif isinstance(node, ast.Import):
                found += [alias.name for alias in node.names]
            elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                todo.append(node.func.id)
    return found


def _modules_of(package: str, names: Collection[str]) -> list[str]:
    """What `from package import names` imports: modules of the package, or names of a module."""
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return [package]
    folders = [pathlib.Path(folder) for folder in spec.submodule_search_locations]
    there = [n for n in names if any((f / f"{n}.py").exists() or (f / n).is_dir() for f in folders)]
    return [package, *(f"{package}.{name}" for name in there)]


class _BrokenError(Exception):
    """A fork server that can fork nothing (any more)."""

    def __init__(self, why: str, worth_another: bool = True):
        super().__init__(why)
        self.worth_another = worth_another


class _ForkServer:
    """The launcher's end of one fork server."""

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
        ours, theirs = socket.socketpair()
        self._channel = ours
        command = [sys.executable, "-m", "tfdrl.launch.fork_server", f"--root_dir={log.parents[1]}"]
        command += [f"--socket={theirs.fileno()}", *(["--quiet"] if quiet else [])]
        command += [f"--preload={module}" for module in preload]
        log.parent.mkdir(parents=True, exist_ok=True)
        with theirs, log.open("ab") as file:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=dict(environment),
                start_new_session=True,
                pass_fds=[theirs.fileno()],
            )

    def again(self) -> _ForkServer | None:
        """Another one like it; None for the second."""
        return _ForkServer(*self._arguments, may_die=False) if self._may_die else None

    def is_ready(self) -> bool:
        """Whether it can fork now. Raises _BrokenError if it never will."""
        while (words := self._next(0.0)) is not None:
            self._take(words)
        if not self._is_ready and time.monotonic() > self._start_secs + _IMPORT_SECS:
            raise _BrokenError(f"has not imported everything after {_IMPORT_SECS:g} s")
        return self._is_ready

    def fork(
        self,
        title: str,
        module_and_arguments: Sequence[str],
        log: IO[bytes],
        environment: Mapping[str, str],
    ) -> int:
        """Returns the id of a new child of this process. Raises _BrokenError."""
        request = {
            "module": module_and_arguments[0],
            "arguments": list(module_and_arguments[1:]),
            "environment": dict(environment),
            "directory": os.getcwd(),
            "title": title,
        }
        data = json.dumps(request).encode()
        read_end, write_end = os.pipe()
        try:
            with _adopting():
                pid = self._ask(data, [log.fileno(), read_end])
            os.write(write_end, b"g")
            return pid
        finally:
            os.close(read_end)
            os.close(write_end)

    def close(self) -> None:
        """Ends it, at once. What it has forked goes on."""
        self._channel.close()
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def _ask(self, data: bytes, files: Sequence[int]) -> int:
        try:
            self._channel.settimeout(_FORK_SECS)
            socket.send_fds(self._channel, [len(data).to_bytes(8, "little")], files)
            self._channel.sendall(data)
        except OSError as error:
            raise _BrokenError(f"takes no requests ({error})") from None
        words = self._next(_FORK_SECS)
        if words is None or "pid" not in words:
            raise _BrokenError(f"has not forked within {_FORK_SECS:g} s")
        return int(words["pid"])

    def _take(self, words: Mapping[str, str | bool]) -> None:
        if "importing" in words:
            self.doing = f"importing {words['importing']}"
        elif "ready" in words:
            self._is_ready, self.doing = True, ""

    def _next(self, limit_secs: float) -> dict | None:
        """The next line that it wrote; None if there is none in time. Raises _BrokenError."""
        deadline_secs = time.monotonic() + limit_secs
        while b"\n" not in self._received:
            self._channel.settimeout(max(deadline_secs - time.monotonic(), 0.0))
            try:
                part = self._channel.recv(4096)
            except (BlockingIOError, socket.timeout):
                return None
            except OSError as error:
                raise _BrokenError(f"is gone ({error})") from None
            self._received += part
            if not part or len(self._received) > _MAX_LINE_BYTES:
                raise _BrokenError("died" if not part else "says nonsense")
        line, _, self._received = self._received.partition(b"\n")
        return json.loads(line)


@contextlib.contextmanager
def _adopting():
    """Meanwhile the orphans of this process's descendants become its own children."""
    prctl = ctypes.CDLL(None, use_errno=True).prctl
    if prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise _BrokenError(f"cannot be used: {os.strerror(ctypes.get_errno())}", False)
    try:
        yield
    finally:
        prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
