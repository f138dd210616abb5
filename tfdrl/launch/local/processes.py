"""How the launcher starts the process of a role: afresh, or forked from one that has imported.

`FreshProcesses` runs the command. `ForkServers` asks a fork server for a process that has imported
TensorFlow already: one for the roles that need it, one for those that must not have it.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
from collections.abc import Callable, Collection, Iterable, Mapping

from tfdrl.errors import EXIT_FAILED, EXIT_OK
from tfdrl.launch.launcher import ProcessSpec
from tfdrl.launch.local.fork_client import (
    Child,
    ForkedProcess,
    ForkServer,
    ForkServerError,
    start_afresh,
)
from tfdrl.launch.local.preloading import preloaded
from tfdrl.launch.process import has_ended
from tfdrl.topology import Program, Role

_UNFINISHED = (
    "the process ended, though its role was not over: something in it, such as a simulator, has "
    "called exit(0)"
)


class LocalProcess:
    """A child of this process, which leads a session: a `tfdrl.launch.launcher.Process`."""

    def __init__(self, child: Child):
        self._child = child

    @property
    def pid(self) -> int:
        """Its process id, and that of its group."""
        return self._child.pid

    def poll(self) -> int | None:
        """The exit code if it has ended; then nothing of its group is left either."""
        # Not reaped yet, it still owns its group id: the kill cannot hit another's.
        if not has_ended(self.pid):
            return None
        self.kill()
        return self.wait()

    def stop(self) -> None:
        """SIGTERM to the role, which ends its children itself."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to its group."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def wait(self) -> int:
        """Waits for its end; returns its exit code, negative for a signal."""
        return self._child.wait()


class _ForkedRole(LocalProcess):
    """One that ends with 0 and has not said so failed: something in it has called `exit(0)`."""

    def __init__(self, child: ForkedProcess, spec: ProcessSpec):
        super().__init__(child)
        self._role, self._log = spec.role.name, spec.log.name

    def wait(self) -> int:
        """As LocalProcess."""
        exit_code, has_left = super().wait(), self._child.has_left()
        if exit_code != EXIT_OK or has_left:
            return exit_code
        with contextlib.suppress(OSError), open(self._log, "a") as log:
            log.write(f"\ntfdrl {self._role}: {_UNFINISHED}\n")
        return EXIT_FAILED


class FreshProcesses:
    """Starts every process afresh."""

    doing = lost = ""

    def is_ready(self, role: Role) -> bool:
        """Always."""
        return True

    def start(self, spec: ProcessSpec) -> LocalProcess:
        """As `Starter.start`."""
        return LocalProcess(start_afresh(spec.command, spec.log, spec.environment))

    def is_ending(self) -> bool:
        """Nobody but the launcher ends a run."""
        return False

    def gone(self, nodes: Collection[str]) -> set[str]:
        """This machine is there."""
        return set()

    def close(self) -> None:
        """Nothing to do."""


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

    lost = ""

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
        self._servers: dict[bool, ForkServer | None] = {}
        for tensorflow in (False, True):
            roles = [role for role in program.roles if role.needs_tensorflow == tensorflow]
            if roles:
                preload = preloaded(roles, modules, tensorflow)
                log = logs / f"fork-server{'' if tensorflow else '-light'}.log"
                self._servers[tensorflow] = ForkServer(preload, log, environment, quiet)

    def is_ready(self, role: Role) -> bool:
        """Whether the role's fork server has imported everything, or there is none."""
        server = self._servers.get(role.needs_tensorflow)
        try:
            return server is None or server.is_ready()
        except ForkServerError as error:
            self._replace(role.needs_tensorflow, server, error)
            return False

    def start(self, spec: ProcessSpec) -> LocalProcess:
        """As `Starter.start`."""
        needs_tensorflow = spec.role.needs_tensorflow
        server = self._servers.get(needs_tensorflow)
        if server is not None:
            try:
                _, _, module, *arguments = spec.command
                forked = server.fork(spec.name, module, arguments, spec.log, spec.environment)
                return _ForkedRole(forked, spec)
            except ForkServerError as error:
                self._replace(needs_tensorflow, server, error)
        return self._fresh.start(spec)

    @property
    def doing(self) -> str:
        """What the fork servers import now."""
        doing = [s.doing for s in self._servers.values() if s is not None and s.doing]
        return ", ".join(dict.fromkeys(doing))

    def is_ending(self) -> bool:
        """Nobody but the launcher ends a run."""
        return False

    def gone(self, nodes: Collection[str]) -> set[str]:
        """This machine is there."""
        return set()

    def close(self) -> None:
        """Ends the fork servers; what they have forked goes on."""
        while self._servers:
            _, server = self._servers.popitem()
            if server is not None:
                server.close()

    def _replace(self, tensorflow: bool, server: ForkServer, error: ForkServerError) -> None:
        self._servers[tensorflow] = None
        server.close()
        again = server.again() if error.worth_another else None
        self._servers[tensorflow] = again
        then = "starting it again" if again else "roles start afresh from here on, which is slower"
        self._notify(f"WARNING: the fork server {error} (its log: {server.log}); {then}")
