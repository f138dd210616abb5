"""The fork server: a process that has imported what roles need, used none of it, and forks them.

    python -m tfdrl.launch.local.fork_server --socket=FD --preload=MODULE[:FUNCTION] ...

Importing TensorFlow, TF-Agents and Reverb costs seconds of CPU time and hundreds of megabytes; a
fork costs milliseconds, and what was imported stays shared. A runtime, a channel, a server or a
thread would not survive the fork, so there is none before it: modules are imported, functions
called that are made for this, and a module that starts a thread is left to the roles.

A role becomes the launcher's own child: the fork server forks an intermediate process, which forks
the role and ends, and the kernel gives the orphan to the launcher, which has asked for it.
Signals, exit codes, and the launcher's death then are as if it had started the role itself.

`tfdrl.launch.local.fork_client` is the other side of the socket, and says what travels on it.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Any

import setproctitle

from tfdrl.errors import EXIT_FAILED, EXIT_OK
from tfdrl.launch import process

#: Of these a thread is known to be harmless: OpenBLAS ends its own before a fork.
_FORK_SAFE = ("numpy",)
#: After so many modules that start a thread it is not worth going on.
_MOST_CULPRITS = 3
#: What the panel says while it imports, by package.
_TITLES = {
    "tensorflow": "TensorFlow",
    "tf_agents": "TF-Agents",
    "reverb": "Reverb",
    "gymnasium": "Gymnasium",
}


def main(argv: Sequence[str]) -> None:
    """Imports, says that it is ready, and forks a role for each request until the socket ends."""
    options = _options(argv)
    channel = socket.socket(fileno=int(options["socket"][0]))
    process.leave_on_signals()  # which removes what AutoGraph wrote
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the launcher's
    process.reap_children()
    process.die_with_launcher()
    if threads() > 1:  # of a sitecustomize, a tracer: they would be missing in what is forked
        _say(channel, unfit="Python itself has started with threads")
        process.leave(EXIT_FAILED)
    setproctitle.getproctitle()  # finds the memory of its arguments, before anybody moves it
    if "quiet" in options:
        process.silence()
    without = set(options.get("without", ()))
    preload = [m for m in options.get("preload", ()) if m.partition(":")[0] not in without]
    culprit = _preload(preload, channel)
    if culprit:
        print(f"{culprit} starts a thread when it is imported: the roles import it themselves")
        sys.stdout.flush()
        if culprit in _TITLES or len(without) + 1 >= _MOST_CULPRITS:
            # All that import it would be found next, one by one, each after imports of seconds.
            _say(channel, unfit=f"{culprit} starts a thread when it is imported")
            process.leave(EXIT_FAILED)
        # The thread cannot be ended: begin again without it.
        again = [*argv[1:], f"--without={culprit}"]
        os.execv(sys.executable, [sys.executable, "-m", "tfdrl.launch.local.fork_server", *again])
    serve(channel)


def _options(argv: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for argument in argv[1:]:
        name, _, value = argument.lstrip("-").partition("=")
        found.setdefault(name, []).append(value)
    return found


def _preload(modules: Sequence[str], channel: socket.socket) -> str:
    """Imports the modules in turn; returns the first that left a thread running, or ""."""
    for module in (*_FORK_SAFE, *modules):
        title = _TITLES.get(module, "")
        if title:
            _say(channel, importing=title)
        before = threads()
        module, _, function = module.partition(":")
        try:
            imported = importlib.import_module(module)
            if function:
                getattr(imported, function)()
        except Exception as error:  # the role that needs it says so, with all that belongs to it
            print(f"{module} could not be imported here: {error}", file=sys.stderr, flush=True)
        if module not in _FORK_SAFE and threads() > before:
            return module
    return ""


def threads() -> int:
    """How many threads this process has."""
    return len(os.listdir("/proc/self/task"))


def _say(channel: socket.socket, **words: Any) -> None:
    channel.sendall(json.dumps(words).encode() + b"\n")


def serve(channel: socket.socket) -> None:
    """Says that it is ready, and forks a role for each request until the socket ends."""
    gc.collect()
    gc.freeze()  # the collector would write to, and so copy, what is shared
    _say(channel, ready=True)
    while True:
        header, files, _, _ = socket.recv_fds(channel, 8, 3)
        if len(header) < 8 or len(files) < 3:
            process.leave(EXIT_OK)  # the launcher has ended, or wants no more roles
        request = json.loads(_read(channel, int.from_bytes(header, "little")))
        try:
            _say(channel, pid=_fork(request, files, channel))
        except OSError as error:
            _say(channel, error=str(error))
        for file in files:
            os.close(file)


def _read(channel: socket.socket, size: int) -> bytes:
    parts = []
    while size:
        part = channel.recv(min(size, 1 << 16))
        if not part:
            raise EOFError("the launcher ended in the middle of a request")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _fork(request: dict[str, Any], files: Sequence[int], channel: socket.socket) -> int:
    """Forks a process that forks the role and ends; returns the role's process id.

    The role tells it itself, once it leads a session: whoever knows it can signal its group.

    Raises OSError if there can be no more processes.
    """
    read_end, write_end = os.pipe()
    try:
        intermediate = os.fork()
        if intermediate == 0:
            os.close(read_end)
            _fork_role(request, files, channel, write_end)
    finally:
        os.close(write_end)
    with open(read_end, "rb") as pipe:
        told = pipe.read(8)
    os.waitpid(intermediate, 0)  # from here on the role is the launcher's child
    if len(told) < 8:
        raise OSError("there can be no more processes")
    return int.from_bytes(told, "little")


def _fork_role(request, files: Sequence[int], channel: socket.socket, write_end: int) -> None:
    """In the intermediate process: forks the role, and ends. The role ends with its function."""
    exit_code = EXIT_FAILED
    try:
        process.remember_generated()
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        if os.fork() != 0:
            os._exit(EXIT_OK)
        os.setsid()  # the terminal's Ctrl-C reaches the launcher only
        os.write(write_end, os.getpid().to_bytes(8, "little"))
        os.close(write_end)
        _become(request, *files, channel)
        exit_code = EXIT_OK
    except SystemExit as error:
        exit_code = process.exit_code_of(error)
    except BaseException:
        traceback.print_exc()
    finally:
        process.leave(exit_code)


def _become(request: dict[str, Any], log: int, go: int, said: int, channel: socket.socket) -> None:
    """Makes this process the role that is asked for, and calls its function."""
    channel.close()
    # The launcher says go once it knows this process; one that it never knows must not run.
    if not select.select([go], [], [], 60.0)[0] or not os.read(go, 1):
        os._exit(EXIT_FAILED)
    _redirect(log)
    process.tell_end(os.dup2(said, 3, inheritable=False))
    os.closerange(4, max(log, go, said) + 1)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _move(request["environment"], request["directory"])
    module, arguments = request["module"], request["arguments"]
    sys.argv = [module, *arguments]
    _set_title(request["title"], module, arguments)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # otherwise every role would draw the same
    importlib.import_module(module).console()


def _redirect(log: int) -> None:
    """Standard input is empty from here on, and all output goes to the log."""
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)


def _move(environment: Mapping[str, str], directory: str) -> None:
    """As if Python had been started there, with these variables."""
    before, here = os.environ.get("PYTHONPATH", ""), os.getcwd()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    added = [directory] if directory != here else []
    if (path := environment.get("PYTHONPATH", "")) != before:
        added += [entry for entry in path.split(os.pathsep) if entry]
    sys.path[:0] = added


def _set_title(name: str, module: str, arguments: Sequence[str]) -> None:
    setproctitle.setproctitle(" ".join([f"tfdrl {name}: -m {module}", *arguments]))
    setproctitle.setthreadtitle(f"tfdrl {name}")


if __name__ == "__main__":
    # Not as __main__: a role that spawns processes would make each import this module anew.
    from tfdrl.launch.local import fork_server

    fork_server.main(sys.argv)
