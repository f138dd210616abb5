"""Runs with parameter servers as real processes: addresses, and what the servers say themselves."""

from __future__ import annotations

import contextlib
import pathlib
import subprocess
import sys
import threading
import time

from paths import CHECKOUT
from running_roles import Process, Roles, free_port

from tfdrl.parameter_server.session import LostError
from tfdrl.parameter_server.watch import ParameterWatch
from tfdrl.topology import Address


class ParameterRoles(Roles):
    """The processes of one run, and all that coordinator and servers ever said.

    Args:
      root_dir, logs, gin_file, flags: as of `Roles`.
      servers: parameter servers of the run.
      replays: replay servers of the run.
      host: `host(role, task)` -> the address that a role listens at.

    Attributes:
      running: the newest process of each role and task.
      statuses: of the coordinator, oldest first.
      coordinators: how many statuses there were as each coordinator began.
      history: for each server its statuses, oldest first.
    """

    def __init__(
        self,
        root_dir: pathlib.Path,
        logs: pathlib.Path,
        gin_file: pathlib.Path,
        *flags: str,
        servers: int = 2,
        replays: int = 0,
        host=lambda role, task: "127.0.0.1",
    ):
        super().__init__(root_dir, logs, gin_file, *flags)
        numbers = {"parameter_server": servers, "replay": replays, "coordinator": 1}
        self._listeners = {
            name: [f"{host(name, task)}:{free_port()}" for task in range(number)]
            for name, number in numbers.items()
        }
        # Whom `Roles` asks.
        self.addresses["learner"] = self.listener("coordinator")
        self.running: dict[tuple[str, int], Process] = {}
        self.statuses, self.history = [], [[] for _ in range(servers)]
        self.coordinators: list[int] = []
        self._watches = threading.local()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._follow, args=(look,), daemon=True)
            for look in (self._look_at_coordinator, self._look_at_servers)
        ]
        for thread in self._threads:
            thread.start()

    def begin(self, role: str, task: int = 0, *flags: str, **more) -> Process:
        """Starts a role of the run; arguments as of `beside`."""
        if role == "coordinator":
            self.coordinators.append(len(self.statuses))
        self.running[role, task] = self.beside(role, task, *flags, **more)
        return self.running[role, task]

    def beside(self, role: str, task: int = 0, *flags: str, **more) -> Process:
        """Starts a role with all addresses that it needs; `more` is as `Roles.start` has it."""
        talks_to = {
            "parameter_server": (),
            "replay": (),
            "coordinator": ("parameter_server",),
            "evaluator": ("coordinator",),
            "worker": ("parameter_server", "coordinator"),
        }.get(role, ("replay", "parameter_server", "coordinator"))
        addresses = {name: ",".join(self._listeners[name]) for name in talks_to}
        if role in self._listeners:
            addresses["listen"] = self._listeners[role][task]
        # None: `Roles` knows no other learner or replay than its own.
        nobody = {"learner": None, "replay": None, "listen": None}
        return self.start(role, f"--task={task}", *flags, **{**nobody, **addresses, **more})

    def listener(self, role: str, task: int = 0) -> str:
        """Where a role listens."""
        return self._listeners[role][task]

    def command(self, *flags: str) -> subprocess.CompletedProcess:
        """`tfdrl-parameters` about all servers."""
        servers = ",".join(self._listeners["parameter_server"])
        return subprocess.run(
            [sys.executable, "-m", "binaries.parameters", f"--parameter_server={servers}", *flags],
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def servers(self) -> list[dict | None]:
        """What the servers say now; None for one that does not answer."""
        return self._watch().statuses()

    def roll_back(self, version: int) -> None:
        """Asks all servers to go back to this version, as the coordinator does."""
        with contextlib.suppress(LostError):
            self._watch().statuses()  # it connects
        self._watch().rollback(version)

    def wait_for_servers(self, condition, limit_secs: float, what: str) -> list[dict]:
        """Waits until `condition(statuses)` holds of servers that all answer."""
        deadline_secs = time.monotonic() + limit_secs
        while True:
            found = self.servers()
            if all(found) and condition(found):
                return found
            if time.monotonic() > deadline_secs:
                raise AssertionError(f"not within {limit_secs:g} s: {what}; {found}")
            time.sleep(0.1)

    def look_no_more(self) -> None:
        """Ends `statuses` and `history`; while the servers are there, or it waits for them."""
        self._stop.set()
        for thread in self._threads:  # one in TensorFlow would abort the interpreter at its end
            thread.join(20)

    def kill(self) -> None:
        self.look_no_more()
        super().kill()

    def _watch(self) -> ParameterWatch:
        """One for each thread: they must not meet in a session."""
        if not hasattr(self._watches, "watch"):
            servers = tuple(map(Address.parse, self._listeners["parameter_server"]))
            self._watches.watch = ParameterWatch(servers, "the test")
        return self._watches.watch

    def _follow(self, look) -> None:
        while not self._stop.wait(0.25):
            look()

    def _look_at_coordinator(self) -> None:
        status = self.status()
        if status is not None:
            self.statuses.append(status)

    def _look_at_servers(self) -> None:
        for history, status in zip(self.history, self.servers()):
            if status:
                history.append(status)
