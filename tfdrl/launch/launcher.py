"""What a launcher is: where the processes of a run are, and how one is started and ended there.

The run (`tfdrl.launch.run`), its supervisor, panel and summary know no more of a launcher than
this page. `tfdrl.launch.local.launcher`, `tfdrl.launch.slurm.launcher` and
`tfdrl.launch.ray.launcher` are three.
"""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import IO, NamedTuple, Protocol

from tfdrl.configuration import Configuration
from tfdrl.launch.placement import Node, Placement
from tfdrl.topology import Program, Resources, Role


class Process(Protocol):
    """A process of a role that runs somewhere, with all that it has started itself."""

    def poll(self) -> int | None:
        """None while it runs; then its exit code, negative for a signal, and nothing is left."""

    def stop(self) -> None:
        """Asks the role to end, as SIGTERM does; it ends what it has started."""

    def kill(self) -> None:
        """Ends it and all that it has started, now; does not wait."""

    def wait(self) -> int:
        """Waits for its end, after `kill`."""


class ProcessSpec(NamedTuple):
    """A process that is to be started.

    Attributes:
      role: that it has.
      task: its number among the replicas of the role, from 0.
      command: of Python: python, "-m", module, arguments.
      log: a file of this machine, open for appending, in which its output ends up.
      environment: its variables.
      node: name of the node that it belongs on; empty: this machine.
    """

    role: Role
    task: int
    command: Sequence[str]
    log: IO[bytes]
    environment: Mapping[str, str]
    node: str = ""

    @property
    def name(self) -> str:
        """Its name for people."""
        return process_name(self.role, self.task)


def process_name(role: Role, task: int) -> str:
    """The name of a replica's process for people: "learner", or "actor 3" of several."""
    return role.name if role.replicas == 1 else f"{role.name} {task}"


class Starter(Protocol):
    """Starts processes."""

    def is_ready(self, role: Role) -> bool:
        """Whether `start` would start one at once; if not, ask again soon."""

    def start(self, spec: ProcessSpec) -> Process:
        """Starts a process, in a session of its own."""

    @property
    def doing(self) -> str:
        """What has to be done before it is ready, in words; "" if nothing."""

    @property
    def lost(self) -> str:
        """What is gone that no process goes on without for long, in words; "" if nothing.

        A starter may leave it out.
        """

    def is_ending(self) -> bool:
        """Whether a scheduler ends all of the run; asked when SIGTERM has ended a process."""

    def gone(self, nodes: Collection[str]) -> set[str]:
        """Those of the nodes, by name, that nothing runs on any more.

        Asked when a process has died that others know the address of, or that the run needs.
        """

    def close(self) -> None:
        """Nothing is started any more. What was started goes on."""


class Start(NamedTuple):
    """What a launcher is told of a run.

    Attributes:
      program: its roles.
      configuration: its settings.
      root_dir: its directory, which exists.
      gin_flags: that say what to run.
      wanted: what a replica of each role wants, by the role's name.
      placed: the node of each replica.
      preload: processes may be forked from one that has imported what they need.
      quiet: libraries keep their start-up messages to themselves.
    """

    program: Program
    configuration: Configuration
    root_dir: pathlib.Path
    gin_flags: Sequence[str]
    wanted: Mapping[str, Resources]
    placed: Placement
    preload: bool = True
    quiet: bool = True


class Launcher(Protocol):
    """A place for runs: one machine, or the nodes of a cluster that a scheduler has given us."""

    #: Whether everything is on the machine of the launcher.
    is_local: bool
    #: Signals of a scheduler, which may come several times and mean: stop, with checkpoints.
    patient_signals: Sequence[int]

    def nodes(self, program: Program) -> Sequence[Node]:
        """What there is; asked again after the loss of a node, which is then none of them.

        Raises ConfigurationError if it cannot be had, or can never be enough.
        """

    def ports(self, start: Start, counts: Mapping[str, int]) -> Mapping[str, Iterator[int]]:
        """So many ports, by the node's name, on which nobody listens there.

        Raises ConfigurationError if a node cannot run this.
        """

    def environment(self, role: Role, task: int) -> Mapping[str, str]:
        """Variables of that process alone."""

    def remarks(self, program: Program, placed: Placement) -> Sequence[str]:
        """Lines for the user, before anything is started."""

    def starter(self, start: Start, notify: Callable[[str], None]) -> Starter:
        """Starts the processes of a run; call before there is any thread.

        Args:
          start: of the run.
          notify: receives one line for the user.
        """

    def stopped_by(self, number: int) -> str:
        """Called at the end of a run that a signal has stopped; returns lines for the user."""
