"""The launchers that there are, by name: --launcher."""

from __future__ import annotations

from tfdrl.launch.launcher import Launcher

NAMES = ("local", "slurm", "ray")


def launcher(name: str, requeue: bool = False, ray_address: str = "") -> Launcher:
    """The launcher of that name, of `NAMES`.

    Args:
      name: of it.
      requeue: a scheduler that has ended a run early starts it again.
      ray_address: host:port of a Ray cluster; empty: as the environment says.

    Raises ConfigurationError if it cannot be used here.
    """
    if name == "slurm":
        from tfdrl.launch.slurm.job import Job
        from tfdrl.launch.slurm.launcher import SlurmLauncher

        return SlurmLauncher(Job.of(), requeue)
    if name == "ray":
        from tfdrl.launch.ray.cluster import Cluster
        from tfdrl.launch.ray.launcher import RayLauncher

        return RayLauncher(Cluster(ray_address))
    from tfdrl.launch.local.launcher import LocalLauncher

    return LocalLauncher()
