"""Supervises the processes of a run, with its panel, from the first to the last."""

from __future__ import annotations

import time
from collections.abc import Sequence

from tfdrl.errors import EXIT_FAILED, EXIT_OK
from tfdrl.experiment import Experiment
from tfdrl.launch import panel, run_directory
from tfdrl.launch.interrupts import Interrupts
from tfdrl.launch.launcher import Starter
from tfdrl.launch.notices import Notices
from tfdrl.launch.observer import Observer
from tfdrl.launch.replica import Replica
from tfdrl.launch.settings import LauncherSettings
from tfdrl.launch.status import RunStatus, Watch
from tfdrl.launch.supervisor import TOLD, RunEnd, Supervisor
from tfdrl.topology import Program

_TICK_SECS = 0.1
_SUSPENDED_SECS = 5.0  # between two ticks


class Supervision:
    """All processes of a run, from the first to the last.

    Args:
      program: their roles.
      watch: of the chief.
      interrupts: that stop them.
      settings: of the supervision.
      experiment: what is trained, and until when.
      disk: of the run's directory.
      observer: is told of the run.
      is_local: whether all of them are on this machine.
    """

    def __init__(
        self,
        program: Program,
        watch: Watch,
        interrupts: Interrupts,
        settings: LauncherSettings,
        experiment: Experiment,
        disk: run_directory.DiskWatch,
        observer: Observer,
        is_local: bool = True,
    ):
        self.watch = watch
        self._program = program
        self._interrupts = interrupts
        self._settings = settings
        self._experiment = experiment
        self._disk, self._is_local = disk, is_local
        self._observer = observer
        self._start_secs = time.monotonic()
        self._waited_since_secs = self._start_secs  # without that nobody could be asked

    def to_its_end(
        self, replicas: Sequence[Replica], starter: Starter, display: panel.Display
    ) -> RunEnd:
        """Starts, supervises and ends the processes."""
        finisher = _finisher(self._program)
        limits = self._settings.limits
        supervisor = Supervisor(replicas, finisher, limits, display.say, starter)
        self._starter = starter
        self._notices = Notices((r.name, r.log) for r in replicas if r.role.serves)
        try:
            supervisor.start()
            ending = self._supervise(supervisor, display)
            return self._finish(supervisor, display, ending)
        finally:
            self.watch.close()
            supervisor.kill()

    def _supervise(self, supervisor: Supervisor, display: panel.Display) -> RunEnd:
        polled_secs = time.monotonic()
        while True:
            now_secs = time.monotonic()
            was_suspended = now_secs - polled_secs > _SUSPENDED_SECS  # Ctrl-Z, a closed lid
            polled_secs = now_secs
            if was_suspended or not supervisor.was_started(self._program.chief):
                self._waited_since_secs = now_secs
            ending = supervisor.poll() or self._stuck(now_secs) or self._lost(display)
            if ending:
                return ending
            if self._interrupts.count:
                return RunEnd(EXIT_OK, TOLD)
            self._observer.see(self.watch.snapshot, now_secs - self._start_secs)
            if display.is_due():
                self._show(supervisor, display)
                for notice in self._notices.take():
                    display.say(notice)
            time.sleep(_TICK_SECS)

    def _finish(self, supervisor: Supervisor, display: panel.Display, ending: RunEnd) -> RunEnd:
        self._show(supervisor, display)
        interrupts = self._interrupts.count
        if interrupts:
            display.say("stopping; press Ctrl-C again to kill")
        else:
            display.say(f"{ending.reason}; stopping the other roles")
        if ending.details:
            display.say("its last lines:\n" + _indented(ending.details))
        unclean = supervisor.stop(lambda: self._interrupts.count > interrupts)
        if interrupts and self._interrupts.count > interrupts:
            return RunEnd(EXIT_FAILED, "killed by a second signal")
        for departure in unclean:
            display.say(f"{departure.replica.name}: {departure.words}")
        by_themselves = [d for d in unclean if d.replica.role.essential and d.was_in_time]
        if ending.exit_code == EXIT_OK:  # a server that dies of being stopped has served
            failed = [d for d in by_themselves if d.exit_code > 0]
            exit_code = EXIT_FAILED if failed else EXIT_OK
        else:  # at the same moment: what kills one, such as a lack of memory, may kill several
            failed = [d for d in by_themselves if d.exit_code < 0]
            exit_code = ending.exit_code
        words = [ending.reason, *(f"{d.replica.name}: {d.words}" for d in failed)]
        return ending._replace(exit_code=exit_code, reason="; ".join(words))

    def _stuck(self, now_secs: float) -> RunEnd | None:
        """Judges the moment at which the tick began: this process may be suspended within it."""
        snapshot, limit_secs = self.watch.snapshot, self._settings.stuck_after_secs
        if not self.watch.is_watching:
            return None
        since_secs = max(snapshot.progress_secs, self._waited_since_secs)
        if now_secs - since_secs <= limit_secs:
            return None
        if snapshot.status is None:
            what = f"the {self._program.chief} has not answered since its start"
        else:
            what = "no learner step and no environment frame" + _who_waits(snapshot)
        return RunEnd(EXIT_FAILED, f"stuck: {what}, for {limit_secs:g} s")

    def _lost(self, display: panel.Display) -> RunEnd | None:
        """Says what is wrong with the disk, on which nobody else may be able to say it."""
        said = self._disk.look()
        if said:
            display.say(said)
        if not self._disk.is_lost:
            return None
        return RunEnd(EXIT_FAILED, f"{self._disk.root_dir} was removed, or replaced, meanwhile")

    def _show(self, supervisor: Supervisor, display: panel.Display) -> None:
        now_secs = time.monotonic()
        crews = [panel.RoleProcesses(r, supervisor.alive(r.name)) for r in self._program.roles]
        rows = panel.facts(
            self.watch.snapshot,
            crews,
            supervisor.restarts,
            elapsed_secs=now_secs - self._start_secs,
            now_secs=now_secs,
            experiment=self._experiment,
            doing=self._starter.doing,
            load=panel.Load.now() if self._is_local else None,
        )
        display.show(rows)


def _finisher(program: Program) -> str:
    """The role whose end is the end of training."""
    names = [role.name for role in program.roles]
    essential = [role.name for role in program.roles if role.essential]
    return program.chief if program.chief in names else (essential or names)[-1]


def _who_waits(snapshot: RunStatus) -> str:
    waiting = panel.waiting(snapshot)
    return f" (waiting: {waiting})" if waiting else ""


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
