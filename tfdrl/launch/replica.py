"""One process of a run: its command, its log, and what became of it."""

from __future__ import annotations

import collections
import dataclasses
import pathlib
import signal
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tfdrl.launch.exits import describe
from tfdrl.launch.launcher import Process, process_name
from tfdrl.topology import Role


@dataclasses.dataclass
class Replica:
    """One process of the run. It is waiting for its start, running, or done.

    Attributes:
      environment: variables of its process, beside those that every role has.
      node: name of the node that it belongs on; empty: this machine.
      is_given_up: it died too often, and is not started again.
    """

    role: Role
    task: int
    command: Sequence[str]
    log: pathlib.Path
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    node: str = ""
    process: Process | None = None
    start_at_secs: float | None = 0.0  # None: running or done
    recent_starts: collections.deque = dataclasses.field(default_factory=collections.deque)
    restarts: int = 0
    is_given_up: bool = False

    @property
    def name(self) -> str:
        return process_name(self.role, self.task)

    @property
    def is_running(self) -> bool:
        return self.process is not None

    def reap(self) -> int | None:
        """The exit code if the process has ended; then nothing of what it started is left."""
        exit_code = None if self.process is None else self.process.poll()
        if exit_code is not None:
            self.process = None
        return exit_code

    def stop(self) -> None:
        """Asks it to end, if it runs."""
        if self.process is not None:
            self.process.stop()


class ExitedReplica(NamedTuple):
    """A process that ended, and how: negative exit codes are signals, as in `subprocess`."""

    replica: Replica
    exit_code: int
    was_in_time: bool = True  # False: it had to be killed

    @property
    def words(self) -> str:
        """What became of it."""
        if not self.was_in_time:
            return "did not stop in time and was killed"
        if self.exit_code < 0:
            return f"died ({describe(self.exit_code)})"
        return f"failed in stopping ({describe(self.exit_code)}); its log: {self.replica.log}"


def kill(replicas: Sequence[Replica]) -> list[ExitedReplica]:
    """Kills those that run, and returns them."""
    running = [replica for replica in replicas if replica.is_running]
    for replica in running:
        replica.process.kill()
    for replica in running:
        replica.process.wait()
        replica.process = None
    return [ExitedReplica(replica, -signal.SIGKILL, False) for replica in running]
