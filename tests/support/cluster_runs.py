"""Whole runs on the nodes of a cluster, as the tests of every launcher of clusters watch them.

A scheduler's job, or a process of the test: what a run prints, and what its roles leave in its
directory, is the same. Most have roles that only behave (`tiny_program`).
"""

from __future__ import annotations

import pathlib
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping

from paths import CHECKOUT

_TINY = """
import tiny_program
experiment.architecture = @tiny()
tiny.learner = 'serve'
tiny.learner_serves = True
"""
EVERYBODY = ("replay-0", "learner-0", "actor-0", "actor-1")
#: Gin files that are solved within LIMIT_SECS on three nodes, which are one small machine.
CARTPOLE = ("impala/cartpole", "apex/cartpole", "seed/cartpole_vtrace", "a3c/cartpole")
LIMIT_SECS = 280.0
_PROC = pathlib.Path("/proc")


def tiny_gin(directory: pathlib.Path) -> pathlib.Path:
    """The gin file of a run whose roles only behave, written there."""
    directory.mkdir(exist_ok=True)
    path = directory / "tiny.gin"
    path.write_text(_TINY)
    return path


def tiny_flags(directory: pathlib.Path, **behaviour: object) -> list[str]:
    """The flags of such a run; `behaviour` is of roles, by name."""
    gin = [f"--gin_bindings=tiny.{name} = {value!r}" for name, value in behaviour.items()]
    return [f"--gin_file={tiny_gin(directory)}", *gin]


class Run:
    """A `tfdrl-train --launcher=...`; who inherits from it starts `command`.

    Args:
      launcher: its name.
      directory: gets the run's own directory, and what the run prints.
      flags: more of them.
    """

    def __init__(self, launcher: str, directory: pathlib.Path, *flags: str):
        self.root_dir, self.out = directory / "run", directory / "out"
        self.command = [sys.executable, "-m", "binaries.train", f"--launcher={launcher}"]
        self.command += [f"--root_dir={self.root_dir}", *flags]

    @property
    def output(self) -> str:
        """What it has printed."""
        return self.out.read_text() if self.out.exists() else ""

    def state(self) -> str:
        """What is to be seen beside its output when a test waits in vain."""
        return ""

    def wait_for(self, condition, limit_secs: float = 60.0) -> None:
        """Waits until condition(), at most so long."""
        deadline_secs = time.monotonic() + limit_secs
        while not condition():
            assert time.monotonic() < deadline_secs, f"{self.state()}\n{self.output}"
            time.sleep(0.2)

    def wait_until_up(self, *roles: str, limit_secs: float = 90.0) -> None:
        """Waits until these roles, such as "actor-1", are there; all, if none is named."""
        paths = self._ready(roles)
        self.wait_for(lambda: all(path.exists() for path in paths), limit_secs)

    def forget(self, *roles: str) -> None:
        """These roles, or all, have to come up again."""
        for path in self._ready(roles):
            path.unlink()

    def _ready(self, roles) -> list[pathlib.Path]:
        return [self.root_dir / f"ready-{role}" for role in roles or EVERYBODY]

    def stopped(self) -> list[str]:
        """The roles that were told to stop and did, in their order."""
        path = self.root_dir / "stopped"
        return path.read_text().split() if path.exists() else []

    def learner_steps(self, since: int = 0) -> list[int]:
        """As its panel has shown them after that many characters."""
        found = re.findall(r"learner steps +([\d,]+)", self.output[since:])
        return [int(text.replace(",", "")) for text in found]

    def processes(self) -> list[int]:
        """Those of this machine whose argument is its directory: what a role that breeds starts."""
        return [int(path.parent.name) for path in _PROC.glob("[0-9]*/cmdline") if self._has(path)]

    def _has(self, path: pathlib.Path) -> bool:
        try:
            return str(self.root_dir).encode() in path.read_bytes().split(b"\0")
        except OSError:
            return False


class ProcessRun(Run):
    """A run that the test's own process has started."""

    def __init__(
        self,
        launcher: str,
        directory: pathlib.Path,
        *flags: str,
        environment: Mapping[str, str],
    ):
        super().__init__(launcher, directory, *flags)
        with self.out.open("w") as out:
            self.process = subprocess.Popen(
                self.command,
                env=environment,
                cwd=CHECKOUT,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def state(self) -> str:
        """Whether it runs."""
        return f"exit code {self.process.poll()}"

    def interrupt(self) -> int:
        """Ctrl-C; returns its exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.end()

    def end(self, limit_secs: float = 60.0) -> int:
        """Waits for its exit code."""
        self.wait_for(lambda: self.process.poll() is not None, limit_secs)
        return self.process.returncode

    def kill(self) -> None:
        """SIGKILL, if it still runs; what it has started ends by itself."""
        self.process.kill()
        self.process.wait()


def check_move_of_actor(run: Run, node: str, fail) -> None:
    """Loses the node of actor 1, by `fail(node)`: it starts elsewhere, and nobody else does."""
    run.forget("actor-1")
    fail(node)
    run.wait_until_up("actor-1")
    assert f"actor 1 moves from {node}, which is down, to" in run.output
    assert "all roles start again" not in run.output


def check_start_elsewhere(run: ProcessRun, node: str, fail) -> None:
    """Loses the node of the learner, by `fail(node)`: all start again on those that are left."""
    run.forget()
    fail(node)
    run.wait_until_up()
    assert f"learner has lost its node {node}: all roles start again" in run.output
    assert run.interrupt() == 0
