"""The Jobs of a run as one JobSet (jobset.x-k8s.io): one object to wait for, queue and delete.

The Jobs are those of `manifests`; what a JobSet adds is an end. When the chief and those who write
results are complete, the set is, and its controller ends the others; when a Job fails for good, so
does the set. A JobSet of Kueue's starts when all of its pods have room, or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tfdrl.launch.cluster.manifest_settings import ManifestSettings
from tfdrl.launch.cluster.manifests import new_object
from tfdrl.topology import Program

_VERSION = "jobset.x-k8s.io/v1alpha2"


def with_jobset(
    objects: Sequence[dict[str, Any]], program: Program, settings: ManifestSettings
) -> list[dict[str, Any]]:
    """The objects of `manifests.objects`, their Jobs as one JobSet, which is the last."""
    jobs = [found for found in objects if found["kind"] == "Job"]
    ends = {role.name for role in program.roles if role.exports} | {program.chief}
    last = [_name(job, settings) for job in jobs if job["metadata"]["labels"]["tfdrl/role"] in ends]
    spec = {
        "network": {"enableDNSHostnames": False},  # the pods have names of their own
        "successPolicy": {"operator": "All", "targetReplicatedJobs": last},
        # A Job restarts its pods by itself, and has a reason when it fails.
        "failurePolicy": {"maxRestarts": 0},
        "replicatedJobs": [_replicated(job, settings) for job in jobs],
    }
    jobset = new_object(_VERSION, "JobSet", settings.name, settings, spec=spec)
    if settings.queue:
        jobset["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = settings.queue
    return [found for found in objects if found["kind"] != "Job"] + [jobset]


def _name(job: dict[str, Any], settings: ManifestSettings) -> str:
    """A Job's name without the run's, which the JobSet puts before it again."""
    return job["metadata"]["name"][len(settings.name) + 1 :]


def _replicated(job: dict[str, Any], settings: ManifestSettings) -> dict[str, Any]:
    # Without a mode a JobSet's Jobs are indexed, and an index is part of a pod's host name.
    spec = {"completionMode": "NonIndexed", **job["spec"]}
    template = {"metadata": {"labels": job["metadata"]["labels"]}, "spec": spec}
    return {"name": _name(job, settings), "replicas": 1, "template": template}
