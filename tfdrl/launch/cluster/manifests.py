"""A program as Kubernetes objects: the same roles, commands and addresses as on one machine.

Each replica that serves, or leaves results, is a Job of its own, whose pod has a stable name under
one headless service and a volume that outlives it; roles of which there may be many are one indexed
Job. A Job fits how a role ends: exit code 0 completes it, 1 starts another pod, 2 and 3 (wrong
configuration, diverged) fail it for good, and a role that was told to stop says 143, which starts
another and counts as no failure.
"""

from __future__ import annotations

import functools
from typing import Any

from tfdrl.configuration import Configuration
from tfdrl.errors import EXIT_CONFIGURATION, EXIT_DIVERGED
from tfdrl.launch.cluster.amounts import amount_of
from tfdrl.launch.cluster.manifest_settings import ManifestSettings
from tfdrl.launch.cluster.pods import SCRATCH, Run, pod
from tfdrl.launch.cluster.role_commands import (
    CLUSTER_PORT,
    CONFIG_DIR,
    PORT,
    STOPPED_EXIT_CODE,
    Containers,
    check_name,
    replica_name,
    role_name,
)
from tfdrl.topology import Program, Role

_MAX_RESTARTS = 20


def objects(
    program: Program, configuration: Configuration, settings: ManifestSettings
) -> list[dict[str, Any]]:
    """The Kubernetes objects of one run, in the order in which they should be made.

    Raises:
      ConfigurationError: a name that Kubernetes would not take.
    """
    check_name(settings.name)
    found = [_config_map(configuration, settings), _service(settings), _network_policy(settings)]
    found.append(_disruption_budget(program, settings))
    run_flags = [f"--gin_file={CONFIG_DIR}/config.gin"]
    run_flags += ["--allow_config_change"] * settings.allow_config_change
    where = functools.partial(host, settings=settings)
    containers = Containers(program, run_flags, where, bool(settings.tls_secret))
    run = Run(settings, containers, _config_name(configuration, settings))
    for role in program.roles:
        if role.serves or role.exports:
            for task in range(role.replicas):
                found += _volume_and_job(run, role, task)
        else:
            found.append(_indexed_job(run, role))
    return found


def host(role: Role, task: int, settings: ManifestSettings) -> str:
    """The name by which other pods of the namespace reach a serving replica."""
    return f"{replica_name(settings.name, role, task)}.{settings.name}"


def new_object(
    version: str, kind: str, name: str, settings: ManifestSettings, **fields
) -> dict[str, Any]:
    """An object of the run: with its label, in its namespace."""
    metadata = {"name": name, "labels": {"tfdrl/run": settings.name}}
    if settings.namespace:
        metadata["namespace"] = settings.namespace
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}


def _config_map(configuration: Configuration, settings: ManifestSettings) -> dict[str, Any]:
    """Of these settings and no others: a pod that starts later finds what the first one found."""
    data, name = {"config.gin": configuration.text}, _config_name(configuration, settings)
    return new_object("v1", "ConfigMap", name, settings, data=data, immutable=True)


def _config_name(configuration: Configuration, settings: ManifestSettings) -> str:
    return f"{settings.name}-{configuration.digest[:8]}"


def _service(settings: ManifestSettings) -> dict[str, Any]:
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,  # roles wait for each other by themselves
        "selector": {"tfdrl/run": settings.name},
        "ports": [{"name": "tfdrl", "port": PORT}, {"name": "collectives", "port": CLUSTER_PORT}],
    }
    return new_object("v1", "Service", settings.name, settings, spec=spec)


def _network_policy(settings: ManifestSettings) -> dict[str, Any]:
    """Reverb's and TensorFlow's servers have no authentication: only the run's own pods may in.

    And out: what runs whatever graph it is sent reaches nobody else, but for names.
    """
    own = {"matchLabels": {"tfdrl/run": settings.name}}
    names = [{"protocol": protocol, "port": 53} for protocol in ("UDP", "TCP")]
    spec = {
        "podSelector": own,
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"podSelector": own}]}],
        "egress": [{"to": [{"podSelector": own}]}, {"ports": names}],
    }
    return new_object("networking.k8s.io/v1", "NetworkPolicy", settings.name, settings, spec=spec)


def _disruption_budget(program: Program, settings: ManifestSettings) -> dict[str, Any]:
    """Roles that serve are moved one at a time, each with a checkpoint; actors freely."""
    serving = sum(role.replicas for role in program.roles if role.serves)
    labels = {"tfdrl/run": settings.name, "tfdrl/serves": "yes"}
    spec = {
        "minAvailable": serving - 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": labels},
    }
    return new_object("policy/v1", "PodDisruptionBudget", settings.name, settings, spec=spec)


def _volume_and_job(run: Run, role: Role, task: int) -> list[dict[str, Any]]:
    settings = run.settings
    name = replica_name(settings.name, role, task)
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": amount_of(settings.storage, role)}},
    }
    volume = {"name": "run", "persistentVolumeClaim": {"claimName": name}}
    template = pod(run, role, str(task), volume)
    template["spec"].update(hostname=name, subdomain=settings.name)
    spec = {"backoffLimit": _MAX_RESTARTS, "podFailurePolicy": _failures(), "template": template}
    return [
        new_object("v1", "PersistentVolumeClaim", name, settings, spec=claim),
        _job(role, name, settings, spec),
    ]


def _indexed_job(run: Run, role: Role) -> dict[str, Any]:
    volume = {"name": "run", "emptyDir": {"sizeLimit": SCRATCH}}
    spec = {
        "completionMode": "Indexed",
        "completions": role.replicas,
        "parallelism": role.replicas,
        "backoffLimitPerIndex": _MAX_RESTARTS,  # a task's failures slow down itself alone
        "podFailurePolicy": _failures(),
        "template": pod(run, role, "$(JOB_COMPLETION_INDEX)", volume),
    }
    return _job(role, role_name(run.settings.name, role), run.settings, spec)


def _job(role: Role, name: str, settings: ManifestSettings, spec: dict[str, Any]) -> dict[str, Any]:
    job = new_object("batch/v1", "Job", name, settings, spec=spec)
    job["metadata"]["labels"]["tfdrl/role"] = role.name  # for kustomize's patches
    return job


def _failures() -> dict[str, Any]:
    final = {"operator": "In", "values": [EXIT_CONFIGURATION, EXIT_DIVERGED]}
    stopped = {"operator": "In", "values": [STOPPED_EXIT_CODE]}
    preempted = {"type": "DisruptionTarget", "status": "True"}
    return {
        "rules": [
            {"action": "FailJob", "onExitCodes": final},
            {"action": "Ignore", "onExitCodes": stopped},
            {"action": "Ignore", "onPodConditions": [preempted]},
        ]
    }
