"""The launchers that there are, by name: --launcher."""

from __future__ import annotations

from tfdrl.launch.launcher import Launcher

NAMES = ("local", "slurm")


def launcher(name: str, requeue: bool = False) -> Launcher:
    """The launcher of that name, of `NAMES`.

    Args:
      name: of it.
      requeue: a scheduler that has ended a run early starts it again.

    Raises ConfigurationError if it cannot be used here.
    """
    if name == "slurm":
        from tfdrl.launch.slurm.job import Job
        from tfdrl.launch.slurm.launcher import SlurmLauncher

        return SlurmLauncher(Job.of(), requeue)
    from tfdrl.launch.local.launcher import LocalLauncher

    return LocalLauncher()
