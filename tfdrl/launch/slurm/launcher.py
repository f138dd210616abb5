"""The launcher of a Slurm job: roles are its steps, on the nodes that it was given."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

from tfdrl.errors import ConfigurationError
from tfdrl.launch import node_check
from tfdrl.launch.launcher import Start, Starter
from tfdrl.launch.placement import Node, Placement, by_node
from tfdrl.launch.slurm.job import Job
from tfdrl.launch.slurm.steps import Steps, step_environment
from tfdrl.topology import Program, Role

#: Of the check of all nodes: Python starts there, perhaps from a slow disk.
_CHECK_SECS = 180.0
#: What `sbatch --signal=B:USR1@...` sends before the time limit.
TIME_LIMIT_SIGNAL = signal.SIGUSR1


class SlurmLauncher:
    """A `tfdrl.launch.launcher.Launcher`.

    Args:
      job: that this process runs in.
      requeue: when its time limit ends a run, the job is put into the queue again.
    """

    is_local = False
    patient_signals: Sequence[int] = (signal.SIGTERM, TIME_LIMIT_SIGNAL)

    def __init__(self, job: Job, requeue: bool = False):
        self._job, self._requeue = job, requeue

    def nodes(self, program: Program) -> Sequence[Node]:
        """Those of the job."""
        return self._job.nodes()

    def ports(self, start: Start, counts: Mapping[str, int]) -> Mapping[str, Iterator[int]]:
        """Free ones of each node, which answers for itself that it can run this.

        Raises ConfigurationError if one cannot.
        """
        nodes = list(counts)
        return node_check.ports(
            start.root_dir,
            start.configuration.digest,
            start.gin_flags,
            counts,
            lambda arguments: _ask(nodes, check_command(nodes, arguments)),
        )

    def environment(self, role: Role, task: int) -> Mapping[str, str]:
        """Slurm says itself which GPUs a step has."""
        return {}

    def remarks(self, program: Program, placed: Placement) -> Sequence[str]:
        """Who is on which node."""
        return by_node(program, placed)

    def starter(self, start: Start, notify: Callable[[str], None]) -> Starter:
        """Steps, one for each process."""
        return Steps(self._job, start.wanted, start.placed, notify)

    def stopped_by(self, number: int) -> str:
        """After the warning of a time limit the job is queued again, if that is wanted.

        So is one that has ended by itself in the time that preemption left to it: Slurm would take
        it for finished.
        """
        try:
            is_preempted = number == signal.SIGTERM and self._job.is_leaving()
            if not is_preempted and number != TIME_LIMIT_SIGNAL:
                return ""
            if not self._requeue:
                why = "it was preempted" if is_preempted else "its time limit is near"
                return f"{why}: submit it again, and it continues\n"
            self._job.requeue()
        except ConfigurationError as error:
            return f"not queued again: {error}\n"
        return f"job {self._job.number} is queued again, and continues then\n"


def check_command(nodes: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """What asks all nodes at once: each runs Python with these arguments."""
    count = len(nodes)
    where = [f"--nodes={count}", f"--ntasks={count}", f"--nodelist={','.join(nodes)}"]
    srun = ["srun", "--quiet", "--overlap", "--mem=0", "--gres=none", *where]
    return [*srun, sys.executable, *arguments]


def _ask(nodes: Sequence[str], command: Sequence[str]) -> tuple[str, str]:
    """What the nodes print, and what goes wrong."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_CHECK_SECS,
            env=step_environment(os.environ),
        )
    except subprocess.TimeoutExpired:
        raise ConfigurationError(
            f"{', '.join(nodes)} have not answered within {_CHECK_SECS:g} s; see squeue --steps"
        ) from None
    except FileNotFoundError:
        raise ConfigurationError("there is no srun here; Slurm must be on PATH") from None
    return done.stdout, done.stderr
