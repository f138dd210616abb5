"""Starts the roles of a run as steps of a Slurm job, one each, on the nodes where they belong."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping

from tfdrl.errors import EXIT_FAILED, EXIT_OK, ConfigurationError
from tfdrl.launch import placement, step
from tfdrl.launch.launcher import ProcessSpec
from tfdrl.launch.moves import Moves
from tfdrl.launch.process import LAUNCHER_VARIABLE
from tfdrl.launch.slurm.job import Job
from tfdrl.topology import Resources, Role

_KILL_SECS = 10.0
#: Of a log, in which the end of a step is looked for.
_END_BYTES = 1 << 14
#: Variables of the job that srun would take for flags of the step.
_NOT_FOR_STEPS = ("CPUS_PER_TASK", "NTASKS", "MEM_PER", "GPUS", "TRES", "CPU_BIND", "NPROCS")


class StepProcess:
    """A step, seen through its srun: a `tfdrl.launch.launcher.Process`."""

    def __init__(self, srun: subprocess.Popen, name: str, job: Job, log: pathlib.Path):
        self._srun, self._name, self._job, self._log = srun, name, job, log
        self._killed_secs: float | None = None

    def poll(self) -> int | None:
        """The role's exit code, once its step is over."""
        code = self._srun.poll()
        return None if code is None else self._over(code)

    def stop(self) -> None:
        """The role gets SIGTERM."""
        self._say(step.STOP)

    def kill(self) -> None:
        """The role and all that it has started get SIGKILL."""
        self._say(step.KILL)
        self._killed_secs = self._killed_secs or time.monotonic()

    def wait(self) -> int:
        """Waits for the end of the step, which Slurm is asked for if it takes too long."""
        # Of many that were killed together, the last may take no longer than the first.
        begin_secs = self._killed_secs or time.monotonic()
        try:
            left_secs = max(begin_secs + _KILL_SECS - time.monotonic(), 0.1)
            return self._over(self._srun.wait(left_secs))
        except subprocess.TimeoutExpired:
            self._srun.kill()
            return self._over(self._srun.wait())

    def _over(self, code: int) -> int:
        with contextlib.suppress(OSError):
            self._srun.stdin.close()
        if code < 0:  # of srun itself: its step goes on without it
            with contextlib.suppress(ConfigurationError):
                self._job.cancel_step(self._name)
        if code == EXIT_OK and not self._has_finished():
            return EXIT_FAILED  # its node is down
        return step.SIGNAL_OFFSET - code if code > step.SIGNAL_OFFSET else code

    def _has_finished(self) -> bool:
        with contextlib.suppress(OSError), self._log.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - _END_BYTES, 0))
            return step.end_line(self._name).encode() in file.read()
        return False

    def _say(self, word: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):  # it is over
            self._srun.stdin.write(word)


class Steps:
    """A `tfdrl.launch.launcher.Starter`.

    Args:
      job: whose steps they are.
      wanted: what a replica of each role wants, by the role's name.
      placed: where each was put.
      notify: receives one line for the user.
    """

    doing = lost = ""

    def __init__(
        self,
        job: Job,
        wanted: Mapping[str, Resources],
        placed: placement.Placement,
        notify: Callable[[str], None],
    ):
        self._job, self._wanted, self._notify = job, wanted, notify
        self._moves = Moves(wanted, placed, job.are_gone, notify)
        self._with_gpus = collections.Counter(
            node.name for role, there in placed.items() if wanted[role].gpus for node in there
        )
        self._numbers = itertools.count()

    def is_ready(self, role: Role) -> bool:
        """Always."""
        return True

    def start(self, spec: ProcessSpec) -> StepProcess:
        """As `Starter.start`: an srun, in a session of its own, that writes what the step does."""
        node = self._moves.node(spec)
        name = f"{spec.name.replace(' ', '-')}-{next(self._numbers)}"
        # One that serves stays where it is, and so does its claim to the only GPUs that are used.
        has_rivals = self._with_gpus[node] > 1 or not spec.role.serves
        srun = srun_command(name, node, self._wanted[spec.role.name], has_rivals)
        popen = subprocess.Popen(
            [*srun, sys.executable, "-m", step.__name__, name, *spec.command],
            stdin=subprocess.PIPE,
            stdout=spec.log,
            stderr=subprocess.STDOUT,
            env=step_environment(spec.environment),
            start_new_session=True,  # the terminal's Ctrl-C reaches the launcher only
            bufsize=0,
        )
        return StepProcess(popen, name, self._job, pathlib.Path(spec.log.name))

    def is_ending(self) -> bool:
        """Whether the job is cancelled or preempted: Slurm may tell its steps alone."""
        try:
            return self._job.is_ending()
        except ConfigurationError as error:
            self._notify(f"WARNING: {error}")
            return False

    def gone(self, nodes: Collection[str]) -> set[str]:
        """Those of the nodes that nothing runs on any more."""
        return self._moves.gone(nodes)

    def close(self) -> None:
        """Nothing to do."""


def srun_command(name: str, node: str, wants: Resources, has_rivals: bool = True) -> list[str]:
    """The srun of one process, but for what it runs.

    Its cores were counted when it was placed. It may use all of the job's on its node, as a process
    of one machine may: a learner computes with as many threads as it has cores of its own, and has
    others that talk. Slurm would bind it to its own alone, where the cluster binds at all. Steps
    that overlap may have the same GPUs, however: who has rivals for them has its own, and so its
    own cores.
    """
    found = ["srun", "--quiet", f"--job-name={name}", "--nodes=1", "--ntasks=1"]
    found.append(f"--nodelist={node}")
    has_its_own = has_rivals and wants.gpus and wants.cpus
    found += ["--exact", f"--cpus-per-task={wants.cpus}"] if has_its_own else ["--overlap"]
    found.append(f"--mem={wants.memory_mb}M" if wants.memory_mb else "--mem=0")  # 0: all, shared
    found.append(f"--gres=gpu:{wants.gpus}" if wants.gpus else "--gres=none")
    return found


def step_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Of an srun: without what the job's own flags would do to a step, and without a launcher."""
    return {
        name: value
        for name, value in environment.items()
        if name != LAUNCHER_VARIABLE
        and not (name.startswith("SLURM_") and any(word in name for word in _NOT_FOR_STEPS))
    }
