"""Keeps the processes of one run: starts, restarts with back-off, stops, leaves none behind."""

from __future__ import annotations

import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tfdrl.errors import EXIT_CONFIGURATION, EXIT_DIVERGED, EXIT_FAILED, EXIT_OK
from tfdrl.launch.exits import START_MARKER, describe, last_words, out_of_memory_kills, tail
from tfdrl.launch.launcher import ProcessSpec, Starter
from tfdrl.launch.local.processes import FreshProcesses
from tfdrl.launch.process import LAUNCHER_VARIABLE
from tfdrl.launch.replica import ExitedReplica, Replica, kill
from tfdrl.launch.settings import Limits

#: Why a run ended that may be continued.
TOLD = "told to stop"
_POLL_SECS = 0.1


class RunEnd(NamedTuple):
    """Why and how a run ended."""

    exit_code: int
    reason: str
    details: str = ""  # last lines of a log
    is_node_lost: bool = False  # all roles can start again on other nodes


class Supervisor:
    """Supervises the replicas of a program; owns no thread: call `poll` often.

    Args:
      replicas: in the order of starting.
      finisher: name of the role whose exit 0 means that the run is finished; of several
        replicas it is the chief's, task 0, and the others may end a little earlier.
      limits: settings.
      notify: receives one line for the user on every restart.
      starter: starts the processes; the owner closes it.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        finisher: str,
        limits: Limits = Limits(),  # noqa: B008  (immutable)
        notify: Callable[[str], None] = print,
        starter: Starter = FreshProcesses(),  # noqa: B008  (has no state)
    ):
        self._starter = starter
        self.replicas = list(replicas)
        self._finisher = finisher
        self._limits = limits
        self._notify = notify
        self._memory_kills = out_of_memory_kills()
        self._finishing: tuple[float, RunEnd] | None = None  # what it is if the chief goes on

    def start(self) -> None:
        """Starts every process that can be started now; `poll` starts the others.

        Call both from the main thread: the processes die with the thread.
        """
        for replica in self.replicas:
            self._start_if_due(replica)

    def poll(self) -> RunEnd | None:
        """Notices deaths, restarts what is due; returns the ending if the run has ended."""
        lost = getattr(self._starter, "lost", "")  # of others' launchers, older ones lack it
        if lost:  # before its processes follow it, without a word
            return RunEnd(EXIT_FAILED, lost)
        for replica in self.replicas:
            if replica.is_running:
                exit_code = replica.reap()
                ending = None if exit_code is None else self._died(replica, exit_code)
                if ending:
                    return ending
            else:
                self._start_if_due(replica)
        if self._finishing and time.monotonic() >= self._finishing[0]:
            return self._finishing[1]
        return None

    def alive(self, role_name: str) -> int:
        """How many processes of that role run now."""
        return sum(r.is_running for r in self.replicas if r.role.name == role_name)

    def was_started(self, role_name: str) -> bool:
        """Whether any process of that role has been started."""
        replicas = [r for r in self.replicas if r.role.name == role_name]
        return any(r.start_at_secs is None or r.restarts for r in replicas)

    @property
    def restarts(self) -> int:
        """Restarts since the run was started."""
        return sum(replica.restarts for replica in self.replicas)

    def stop(self, hurry: Callable[[], bool] = lambda: False) -> list[ExitedReplica]:
        """Ends every process: SIGTERM, then SIGKILL to what is left after the grace time
        and its role's `flush_secs`.

        Actors and evaluators go first, all at once; then the essential roles, one role at a
        time, last started first: the learner writes its checkpoint while replay still answers.

        Args:
          hurry: asked often; once it says True everything is killed at once.

        Returns those that failed in stopping or had to be killed.
        """
        unclean = []
        for stage in self._stages():
            for replica in stage:
                replica.stop()
            told_secs = time.monotonic() + self._limits.grace_secs
            deadline_secs = told_secs + max((r.role.flush_secs for r in stage), default=0.0)
            while any(r.is_running for r in stage):
                if hurry():
                    return unclean + self.kill()
                if told_secs <= time.monotonic() < deadline_secs:
                    names = ", ".join(r.name for r in stage if r.is_running)
                    self._notify(f"{names} still writes to disk")
                    told_secs = deadline_secs
                if time.monotonic() >= deadline_secs:
                    unclean += kill(stage)
                    break
                time.sleep(_POLL_SECS / 2)
                for replica in stage:
                    exit_code = replica.reap()
                    # SIGTERM itself ends a process that has not got as far as its handlers.
                    if exit_code not in (None, EXIT_OK, -signal.SIGTERM):
                        unclean.append(ExitedReplica(replica, exit_code))
        return unclean

    def kill(self) -> list[ExitedReplica]:
        """Kills every process that is left, now, and returns them."""
        return kill(self.replicas)

    def _stages(self) -> list[list[Replica]]:
        helpers = [r for r in self.replicas if not r.role.essential]
        essential: dict[str, list[Replica]] = {}
        for replica in self.replicas:
            replica.start_at_secs = None  # nothing is restarted from here on
            if replica.role.essential:
                essential.setdefault(replica.role.name, []).append(replica)
        return [helpers, *reversed(list(essential.values()))]

    def _start_if_due(self, replica: Replica) -> None:
        is_due = replica.start_at_secs is not None and time.monotonic() >= replica.start_at_secs
        if is_due and self._starter.is_ready(replica.role):
            self._start(replica)

    def _start(self, replica: Replica) -> None:
        replica.log.parent.mkdir(parents=True, exist_ok=True)
        with replica.log.open("ab") as log:
            marker = f"{START_MARKER} {replica.name} starts at {time.strftime('%F %T')} ===="
            log.write(f"{marker}\n".encode())
            log.flush()
            environment = {**role_environment(), **replica.environment}
            replica.process = self._starter.start(
                ProcessSpec(
                    replica.role, replica.task, replica.command, log, environment, replica.node
                )
            )
        replica.start_at_secs = None

    def _died(self, replica: Replica, exit_code: int) -> RunEnd | None:
        name, essential = replica.role.name, replica.role.essential
        before, self._memory_kills = self._memory_kills, out_of_memory_kills()
        if exit_code == -signal.SIGKILL and self._memory_kills > before:
            self._notify(
                "the kernel of this machine has killed a process for want of memory: "
                f"{replica.name}, as it seems; it needs more of it, or the run less (replay size, "
                "environments, actors)"
            )
        if exit_code == -signal.SIGTERM and self._starter.is_ending():
            return RunEnd(EXIT_OK, TOLD)
        if exit_code == EXIT_OK:
            if name == self._finisher and replica.task == 0:
                return RunEnd(EXIT_OK, f"{name} finished")
            if not essential:
                return None  # told to stop, by the learner or by somebody else
            reason = f"{replica.name} stopped, though the run goes on ({describe(exit_code)})"
            ending = RunEnd(EXIT_FAILED, reason, tail(replica.log))
            if name != self._finisher:
                return ending
            if self._finishing is None:
                self._finishing = time.monotonic() + self._limits.finish_secs, ending
            return None
        if exit_code in (EXIT_CONFIGURATION, EXIT_DIVERGED):
            return self._failure(replica, exit_code, "")
        lost = self._lost() if essential or replica.role.serves else ""
        if lost:
            return RunEnd(EXIT_FAILED, lost, is_node_lost=True)
        if essential and not replica.role.restarts:
            return self._failure(replica, exit_code, "")
        return self._schedule_restart(replica, exit_code)

    def _lost(self) -> str:
        """Who of those that stay where they are has lost its node, in words; "" if nobody has."""
        staying = [r for r in self.replicas if r.role.essential or r.role.serves]
        gone = self._starter.gone({replica.node for replica in staying})
        return "; ".join(f"{r.name} has lost its node {r.node}" for r in staying if r.node in gone)

    def _failure(self, replica: Replica, exit_code: int, addition: str) -> RunEnd:
        end = f"({describe(exit_code)}){addition}"
        said = last_words(replica.log, replica.role.name) if exit_code > 0 else ""
        reason = f"{replica.name}: {said} {end}" if said else f"{replica.name} died {end}"
        return RunEnd(exit_code if exit_code > 0 else EXIT_FAILED, reason, tail(replica.log))

    def _give_up(self, replica: Replica, exit_code: int, addition: str) -> RunEnd | None:
        """The others go on without it while enough of its role are left."""
        replica.is_given_up = True
        role = replica.role
        left = sum(r.role.name == role.name and not r.is_given_up for r in self.replicas)
        enough = max(1, math.ceil(self._limits.min_replicas_share * role.replicas))
        if role.essential or role.needs_all or left < enough:
            return self._failure(replica, exit_code, addition)
        self._notify(
            f"{replica.name} died ({describe(exit_code)}){addition}: it is given up, and {left} of "
            f"{role.replicas} {role.name}s go on without it; its log: {replica.log}"
        )
        return None

    def _schedule_restart(self, replica: Replica, exit_code: int) -> RunEnd | None:
        limits, now_secs = self._limits, time.monotonic()
        recent = replica.recent_starts
        while recent and now_secs - recent[0] > limits.restart_window_secs:
            recent.popleft()
        if len(recent) >= limits.max_restarts:
            window = f"{limits.restart_window_secs:g} s"
            addition = f", after {len(recent)} restarts within {window}"
            return self._give_up(replica, exit_code, addition)
        backoff_secs = min(limits.first_backoff_secs * 2 ** len(recent), limits.max_backoff_secs)
        recent.append(now_secs)
        replica.start_at_secs = now_secs + backoff_secs
        replica.restarts += 1
        self._notify(
            f"{replica.name} died ({describe(exit_code)}); starting it again in "
            f"{backoff_secs:g} s; its log: {replica.log}"
        )
        return None


def role_environment() -> dict[str, str]:
    """The environment of a role that this process starts: it ends when this process does."""
    return {
        **os.environ,
        LAUNCHER_VARIABLE: str(os.getpid()),
        "PYTHONUNBUFFERED": "1",
        "PYTHONFAULTHANDLER": "1",
    }
