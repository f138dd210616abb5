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
import time

from mortal import PARENT_VARIABLE
from paths import CHECKOUT, python_path

from tfdrl.launch.local.fork_client import ForkServer
from tfdrl.launch.process import LAUNCHER_VARIABLE
from tfdrl.launch.supervisor import role_environment

_WAIT_SECS = 0.01
_server: ForkServer | None = None


def _modules() -> list[str]:
    """All that roles and launchers import."""
    found = ["gymnasium", "tensorflow", "tf_agents", "reverb"]
    found += ["matplotlib.backends.backend_agg", "matplotlib.figure"]  # of a run's curve
    for path in sorted((CHECKOUT / "tfdrl").rglob("[a-z]*.py")):
        module = ".".join(path.relative_to(CHECKOUT).with_suffix("").parts)
        if module.split(".")[1] not in ("benchmarks", "studies"):
            found.append(module)
    return [*found, "binaries.train", "tfdrl.runtime.autograph:convert_ahead"]


def _fork_server() -> ForkServer:
    global _server
    if _server is None:
        directory = pathlib.Path(tempfile.mkdtemp(prefix="tfdrl-tests-")) / "logs"
        environment = {**role_environment(), "PYTHONPATH": python_path()}
        log = directory / "fork-server.log"
        _server = ForkServer(_modules(), log, environment, quiet=True)
        atexit.register(_server.close)
    deadline_secs = time.monotonic() + 120
    while not _server.is_ready():
        assert time.monotonic() < deadline_secs, f"the tests' fork server: {_server.doing}"
        time.sleep(_WAIT_SECS)
    return _server


class Process:
    """What `python -m module arguments` would be; for tests as `subprocess.Popen` is.

    Args:
      module: has a function `console`.
      arguments: of its command line.
      log: file that it appends its output to.
      environment: its variables.
      directory: its working directory.
    """

    def __init__(self, module, arguments, log: pathlib.Path, environment=None, directory=None):
        environment = dict(os.environ if environment is None else environment)
        environment.pop(LAUNCHER_VARIABLE, None)
        environment[PARENT_VARIABLE] = str(os.getpid())
        module = "preloaded_launcher" if module == "binaries.train" else module
        with log.open("ab") as file:
            name = module.rpartition(".")[2]
            server = _fork_server()
            forked = server.fork(
                *(name, "mortal", [module, *arguments], file, environment, directory or "")
            )
        self.pid = forked.pid
        self.returncode = None

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
