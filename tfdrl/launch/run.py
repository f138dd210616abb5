"""Runs a whole program: one process for each replica, wherever a launcher starts it, to its end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tfdrl.configuration import Configuration
from tfdrl.errors import EXIT_CONFIGURATION, EXIT_FAILED, EXIT_OK, ConfigurationError
from tfdrl.experiment import Experiment
from tfdrl.launch import (
    addresses,
    credentials,
    curves,
    open_files,
    output,
    panel,
    placement,
    process,
    run_directory,
    run_facts,
    services,
    summary,
)
from tfdrl.launch.interrupts import Interrupts
from tfdrl.launch.launcher import Launcher, Start
from tfdrl.launch.local.launcher import LocalLauncher
from tfdrl.launch.observer import Nobody, Observer
from tfdrl.launch.placement import Placement
from tfdrl.launch.replicas import announcement, common_arguments, gin_flags, replicas_of
from tfdrl.launch.settings import LauncherSettings
from tfdrl.launch.status import RunStatus, Watch
from tfdrl.launch.supervision import Supervision
from tfdrl.launch.supervisor import TOLD, RunEnd
from tfdrl.topology import Program, Resources

#: After a node was lost: for room on those that are left, or for another one.
_ROOM_SECS = 120.0
_LOOK_SECS = 1.0


def run_program(
    experiment: Experiment,
    program: Program,
    configuration: Configuration,
    root_dir: str | os.PathLike,
    gin_files: Sequence[str],
    gin_bindings: Sequence[str] = (),
    settings: LauncherSettings = LauncherSettings(),  # noqa: B008  (immutable)
    command: Sequence[str] = (),
    launcher: Launcher | None = None,
    observer: Observer | None = None,
) -> int:
    """Starts every role, watches them to the end, and leaves no process behind.

    Call from the main thread: it takes over the signals, and the roles die with it.

    Args:
      experiment: what is trained, and until when.
      program: the roles.
      configuration: of this start; its text is kept as root_dir/config.gin.
      root_dir: the run's directory; created, or continued.
      gin_files: as given on the command line; the roles get them.
      gin_bindings: the same.
      settings: of the supervision.
      command: that continues this run, for the summary.
      launcher: starts the processes; None: on this machine.
      observer: is told of the run.

    A node that is lost with a role that others know the address of, or that the run cannot do
    without, has all roles start again, on the nodes that are left, from what is in root_dir.

    Returns the exit code: 0 if training finished or was told to stop, else that of the role
    which ended the run. Raises ConfigurationError before any process has started.
    """
    launcher, observer = launcher or LocalLauncher(), observer or Nobody()
    open_files.raise_limit()
    nodes = launcher.nodes(program)
    wanted = placement.parse(settings.resources, program, nodes)
    placed = placement.place(program, wanted, nodes)
    run_directory.check_name(root_dir)
    root_dir = run_directory.resolved(root_dir)
    start_secs = time.monotonic()
    process.reap_children()
    with (
        output.unfailing(),
        Interrupts(launcher.patient_signals) as interrupts,
        run_directory.claim(root_dir) as lock,
    ):
        start = Start(
            program,
            configuration,
            root_dir,
            gin_flags(gin_files, gin_bindings),
            wanted,
            placed,
            preload=settings.preload,
            quiet=not settings.verbose,
        )
        arguments = common_arguments(root_dir, gin_files, gin_bindings, settings.verbose)
        disk = run_directory.DiskWatch(root_dir, lock)
        run = _Run(experiment, settings, launcher, observer, interrupts, disk, arguments, command)
        ending, snapshot = run.start_all(start)
        for _ in range(settings.limits.max_restarts):
            if not ending.is_node_lost:
                break
            ending, snapshot = run.start_elsewhere(start, ending, snapshot)
        curves.draw(root_dir, experiment.solved_return)
        page = summary.text(
            root_dir,
            reason=ending.reason,
            exit_code=ending.exit_code,
            elapsed_secs=time.monotonic() - start_secs,
            snapshot=snapshot,
            target=experiment.solved_return,
            command=command,
        )
        summary.write(root_dir, page)
        print(f"\n{page}", end="", flush=True)
        if ending.reason.startswith(TOLD):
            print(launcher.stopped_by(interrupts.first or signal.SIGTERM), end="", flush=True)
        observer.end(ending)
    return ending.exit_code


class _Run(NamedTuple):
    """What is the same whenever all roles are started."""

    experiment: Experiment
    settings: LauncherSettings
    launcher: Launcher
    observer: Observer
    interrupts: Interrupts
    disk: run_directory.DiskWatch
    arguments: Sequence[str]
    command: Sequence[str]

    def start_all(self, start: Start) -> tuple[RunEnd, RunStatus]:
        """Starts every role where it was placed, and watches them to the end.

        Raises ConfigurationError before any process has started.
        """
        program, root_dir = start.program, start.root_dir
        with contextlib.ExitStack() as held:
            ports = self.launcher.ports(start, addresses.counts(program, start.placed))
            places = addresses.assign(program, start.placed, ports)
            made = credentials.made(root_dir, places.hosts, self.settings.insecure_network)
            protection = held.enter_context(made)
            text, allow_change = start.configuration.text, self.settings.allow_config_change
            is_first = run_directory.keep_configuration(root_dir, text, allow_change)
            run_facts.write(root_dir, run_facts.of(self.experiment, program, self.command))
            held.enter_context(services.written(root_dir, program.chief, places, protection))
            own = self.launcher.environment
            replicas = replicas_of(
                program, start.placed, places, root_dir, self.arguments, protection, own
            )
            remarks = [
                *start.configuration.remarks,
                *self.launcher.remarks(program, start.placed),
            ]
            print(announcement(program, places, root_dir, remarks), flush=True)
            self.observer.begin(root_dir)
            with contextlib.ExitStack() as shown:
                title = f"tfdrl: {program.name}"
                display = shown.enter_context(contextlib.closing(panel.display(title)))
                # Before there is any thread: it may fork this process.
                starter = self.launcher.starter(start, display.say)
                shown.callback(starter.close)
                run_directory.put_end_aside(root_dir)
                chiefs = places.listeners.get(program.chief, ())
                watch = Watch(chiefs, start.configuration.digest, protection.security)
                supervision = Supervision(
                    program,
                    watch,
                    self.interrupts,
                    self.settings,
                    self.experiment,
                    self.disk,
                    self.observer,
                    self.launcher.is_local,
                )
                ending = supervision.to_its_end(replicas, starter, display)
            if is_first and ending.exit_code == EXIT_CONFIGURATION:
                run_directory.forget_configuration(root_dir)
            return ending, watch.snapshot

    def start_elsewhere(
        self, start: Start, before: RunEnd, snapshot: RunStatus
    ) -> tuple[RunEnd, RunStatus]:
        """The same on the nodes that are left after a loss, which `before` and `snapshot` tell."""
        print(f"{before.reason}: all roles start again on the nodes that are left", flush=True)
        try:
            placed = self._place_again(start.program, start.wanted)
            if placed is None:
                return RunEnd(EXIT_OK, TOLD), snapshot
            return self.start_all(start._replace(placed=placed))
        except ConfigurationError as error:
            return RunEnd(EXIT_FAILED, f"{before.reason}, and no other will do: {error}"), snapshot

    def _place_again(self, program: Program, wanted: Mapping[str, Resources]) -> Placement | None:
        """None if it is interrupted. Raises ConfigurationError if there is no room in the end."""
        deadline_secs = time.monotonic() + _ROOM_SECS
        while not self.interrupts.count:
            try:
                return placement.place(program, wanted, self.launcher.nodes(program))
            except ConfigurationError:
                if time.monotonic() > deadline_secs:
                    raise
            time.sleep(_LOOK_SECS)
        return None
