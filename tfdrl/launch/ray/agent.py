"""What a run has on each node of a Ray cluster: actors that start its roles, and a question.

Ray imports this module there.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tfdrl.launch import step
from tfdrl.launch.process import LAUNCHER_VARIABLE

#: Variables of the launcher that say something of its own machine, or of its own process.
_OF_ONE_PROCESS = (LAUNCHER_VARIABLE, "CUDA_VISIBLE_DEVICES")


class Surroundings(NamedTuple):
    """In which a process of the run starts.

    Attributes:
      directory: where; empty: that of the actor, which Ray has made from --working-dir.
      environment: the launcher's variables, for those that the node has none of.
    """

    directory: str
    environment: Mapping[str, str]

    def check(self) -> None:
        """Raises FileNotFoundError if the directory is not there."""
        if self.directory and not os.path.isdir(self.directory):
            raise FileNotFoundError(
                f"there is no {self.directory} here: start in a directory on a file system that "
                "all nodes share, or with `ray job submit --working-dir .`"
            )

    def options(self) -> dict:
        """Of a `subprocess.Popen`."""
        return {"cwd": self.directory or None, "env": merged(self.environment, os.environ)}


def merged(launcher: Mapping[str, str], node: Mapping[str, str]) -> dict[str, str]:
    """The variables of a process: the node's own and, where it has none, the launcher's."""
    sent = {
        name: value
        for name, value in launcher.items()
        if name not in _OF_ONE_PROCESS and not name.startswith("RAY_")
    }
    found = {**sent, **node}
    paths = [node.get("PYTHONPATH", ""), sent.get("PYTHONPATH", "")]
    entries = [entry for path in paths for entry in path.split(os.pathsep) if entry]
    if entries:
        found["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(entries))
    found.pop(LAUNCHER_VARIABLE, None)
    return found


class Agent:
    """A Ray actor that has started one process of the run, and holds its standard input.

    Ray gives it the cores and the GPUs, which the process then has. When Ray ends the actor, the
    process's input ends, and so does it (`tfdrl.launch.step`).

    Args:
      name: of the process, for people.
      command: of Python.
      log: file that gets its output.
      surroundings: of the process.
    """

    def __init__(
        self, name: str, command: Sequence[str], log: pathlib.Path, surroundings: Surroundings
    ):
        surroundings.check()
        self._said = threading.Lock()
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", step.__name__, name, sys.executable, *command[1:]],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                bufsize=0,
                **surroundings.options(),
            )

    def wait(self) -> int:
        """The exit code of the role, negative for a signal, once nothing is left of it."""
        code = self._process.wait()
        return step.SIGNAL_OFFSET - code if code > step.SIGNAL_OFFSET else code

    def say(self, word: bytes) -> None:
        """Passes `step.STOP` or `step.KILL` on."""
        with self._said:
            try:
                self._process.stdin.write(word)
            except OSError:
                return  # it is over


def ask(command: Sequence[str], surroundings: Surroundings, limit_secs: float) -> tuple[str, str]:
    """Runs a command of Python on the node; returns what it prints, and what goes wrong."""
    surroundings.check()
    done = subprocess.run(
        [sys.executable, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=limit_secs,
        **surroundings.options(),
    )
    return done.stdout, done.stderr
