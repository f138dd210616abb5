"""Processes forked from one that has imported everything: as `tfdrl-train` starts its roles.

Each process of TensorFlow that a test starts afresh costs 4 CPU seconds of importing.
"""

from __future__ import annotations

import atexit
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import threading
import time

from mortal import PARENT_VARIABLE, PID_1_VARIABLE
from paths import CHECKOUT, python_path

from tfdrl.configuration import source
from tfdrl.launch.local.fork_client import ForkServer
from tfdrl.launch.process import LAUNCHER_VARIABLE
from tfdrl.launch.supervisor import role_environment

_WAIT_SECS = 0.01
_servers: dict[bool, ForkServer] = {}  # by whether it has TensorFlow


def _modules(tensorflow: bool) -> list[str]:
    """All that roles and launchers import, in the order of importing."""
    found = [
        "gymnasium",
        "matplotlib.backends.backend_agg",
        "matplotlib.figure",
    ]  # of a run's curve
    found += ["tensorflow", "tf_agents", "reverb"] if tensorflow else []
    for path in sorted((CHECKOUT / "tfdrl").rglob("[a-z]*.py")):
        module = ".".join(path.relative_to(CHECKOUT).with_suffix("").parts)
        left_out = module.split(".")[1] in ("benchmarks", "studies")
        if not left_out and (tensorflow or not source.loads_tensorflow(module)):
            found.append(module)
    found += ["binaries.train", "tfdrl.configuration.loading:read_ahead"]
    return [*found, "tfdrl.runtime.autograph:convert_ahead"] if tensorflow else found


def _fork_server(tensorflow: bool) -> ForkServer:
    if tensorflow not in _servers:
        directory = pathlib.Path(tempfile.mkdtemp(prefix="tfdrl-tests-")) / "logs"
        environment = {**role_environment(), "PYTHONPATH": python_path()}
        log = directory / "fork-server.log"
        _servers[tensorflow] = ForkServer(_modules(tensorflow), log, environment, quiet=True)
        atexit.register(_servers[tensorflow].close)
    server, deadline_secs = _servers[tensorflow], time.monotonic() + 120
    while not server.is_ready():
        assert time.monotonic() < deadline_secs, f"the tests' fork server: {server.doing}"
        time.sleep(_WAIT_SECS)
    return server


class Process:
    """What `python -m module arguments` would be; for tests as `subprocess.Popen` is.

    Args:
      module: has a function `console`.
      arguments: of its command line.
      log: file that it appends its output to.
      environment: its variables.
      directory: its working directory.
      as_pid_1: it is the only child of the process that this is, in a PID namespace.
      tensorflow: whether it has imported it, and all that uses it.
    """

    def __init__(
        self,
        module,
        arguments,
        log: pathlib.Path,
        environment=None,
        directory=None,
        as_pid_1: bool = False,
        tensorflow: bool = True,
    ):
        environment = dict(os.environ if environment is None else environment)
        environment.pop(LAUNCHER_VARIABLE, None)
        environment[PARENT_VARIABLE] = str(os.getpid())
        environment[PID_1_VARIABLE] = "1" * as_pid_1
        module = "preloaded_launcher" if module == "binaries.train" else module
        with self._output(log) as file:
            name = module.rpartition(".")[2]
            server = _fork_server(tensorflow)
            forked = server.fork(
                *(name, "mortal", [module, *arguments], file, environment, directory or "")
            )
        self.pid = forked.pid
        self.returncode = None

    def _output(self, log):
        return log.open("ab")

    def poll(self):
        """The exit code if it has ended."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout=None):
        """The exit code. Raises subprocess.TimeoutExpired."""
        deadline_secs = None if timeout is None else time.monotonic() + timeout
        while self.poll() is None:
            if deadline_secs is not None and time.monotonic() > deadline_secs:
                raise subprocess.TimeoutExpired(f"process {self.pid}", timeout)
            time.sleep(_WAIT_SECS)
        return self.returncode

    def send_signal(self, number):
        """Nothing if it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self):
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


class PipedProcess(Process):
    """One whose output, errors too, is the text of `stdout`, a pipe."""

    def __init__(self, *arguments, **more):
        read_end, self._write_end = os.pipe()
        self.stdout = os.fdopen(read_end, errors="replace")
        super().__init__(*arguments, None, **more)

    def _output(self, log):
        return os.fdopen(self._write_end, "wb")

    def communicate(self, timeout):
        """Its output to its end, and None. Raises subprocess.TimeoutExpired.

        Also if what it has started still has the pipe after its end, as `subprocess.Popen` does.
        """
        parts = []
        reading = threading.Thread(target=lambda: parts.append(self.stdout.read()), daemon=True)
        reading.start()
        self.wait(timeout)
        reading.join(timeout)
        if reading.is_alive():
            raise subprocess.TimeoutExpired(f"output of process {self.pid}", timeout)
        return "".join(parts), None


def call(function: str, file: str, timeout: float = 200) -> str:
    """Calls "module:function" of a test's directory in a process where TensorFlow is unused.

    Args:
      function: with the module that has it.
      file: the test's, beside that module.
      timeout: seconds.

    Returns what it has printed; it must end well.
    """
    directory = pathlib.Path(file).resolve().parent
    environment = {**os.environ, "PYTHONPATH": python_path(directory)}
    done = run("called", [function], directory, environment, timeout)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def run(module: str, arguments, directory, environment=None, timeout: float = 150):
    """Runs a module to its end, as `subprocess.run`; its output, errors too, is `stdout`."""
    with tempfile.TemporaryDirectory() as place:
        log = pathlib.Path(place) / "log"
        process = Process(module, arguments, log, environment, directory)
        try:
            code = process.wait(timeout)
        finally:
            process.kill()
        return subprocess.CompletedProcess([module, *arguments], code, log.read_text(), "")


def python(script: str, file: str, timeout: float = 200) -> str:
    """Runs `python -c script` beside a test, where nothing is imported yet; returns its output."""
    directory = pathlib.Path(file).resolve().parent
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": python_path(directory)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    return done.stdout
