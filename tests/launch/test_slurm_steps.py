"""What a step of a real Slurm job sees of its node: GPUs, cores."""

import os
import sys

import pytest
import slurm_cluster

from tfdrl.launch.slurm import steps
from tfdrl.launch.slurm.job import Job
from tfdrl.topology import Resources

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing() or "there"),
]


def test_a_gpu_of_the_job_is_seen_by_who_has_it_alone(monkeypatch):
    with slurm_cluster.cluster(nodes=2, has_gpus=True) as cluster:
        job = _held(cluster, "--nodes=2", "--cpus-per-task=4", "--mem=1000", "--gres=gpu:1")
        monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
        assert [(n.cpus, n.gpus) for n in Job(job).nodes()] == [(4, 1), (4, 1)]

        def sees(wants, **rivals):
            command = steps.srun_command("learner-0", "n2", wants, **rivals)
            python = [sys.executable, "-c", _GPUS]
            return cluster.call(*command, f"--jobid={job}", *python).strip()

        assert sees(Resources(cpus=2, gpus=1)) == "0"
        assert sees(Resources(cpus=2, gpus=1), has_rivals=False) == "0"
        assert sees(Resources(cpus=1)) in ("", "NoDevFiles")
        cluster.end(job)


_GPUS = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES', ''))"


def _held(cluster, *flags: str) -> str:
    """The number of a job that holds its nodes, and runs nothing by itself."""
    cluster.call("salloc", "--no-shell", "--job-name=held", "--ntasks-per-node=1", *flags)
    return cluster.call("squeue", "--noheader", "--name=held", "--format=%i").strip()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core binds everybody alike")
def test_where_the_cluster_binds_a_role_may_still_use_all_cores_of_the_job():
    with slurm_cluster.cluster(nodes=1, cpus=2, binding="affinity") as cluster:
        job = _held(cluster, "--nodes=1", "--cpus-per-task=2", "--mem=1000")

        def cores(flags):
            command = [*flags, f"--jobid={job}", sys.executable, "-c", _CORES]
            return int(cluster.call(*command))

        role = steps.srun_command("learner-0", "n1", Resources(cpus=1))
        bound = [flag for flag in role if flag != "--overlap"] + ["--exact", "--cpus-per-task=1"]
        assert (cores(role), cores(bound)) == (2, 1)
        cluster.end(job)


_CORES = "import os; print(len(os.sched_getaffinity(0)))"
