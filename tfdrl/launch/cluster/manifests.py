"""A program as Kubernetes objects: the same roles, commands and addresses as on one machine.

Each replica that serves, or leaves results, is a Job of its own, whose pod has a stable name under
one headless service and a volume that outlives it; roles of which there may be many are one indexed
Job. A Job fits how a role ends: exit code 0 completes it, 1 starts another pod, 2 and 3 (wrong
configuration, diverged) fail it for good, and a role that was told to stop says 143, which starts
another and counts as no failure.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

from tfdrl.configuration import Configuration
from tfdrl.errors import EXIT_CONFIGURATION, EXIT_DIVERGED
from tfdrl.launch.cluster.amounts import amount_of, doubled
from tfdrl.launch.cluster.role_commands import (
    CLUSTER_PORT,
    CONFIG_DIR,
    PORT,
    RUN_DIR,
    STOPPED_EXIT_CODE,
    TLS_DIR,
    Containers,
    check_name,
    has_cluster,
    replica_name,
    role_name,
)
from tfdrl.topology import Program, Role

_USER = 1000  # of the images
_GRACE_SECS, _START_SECS, _MAX_RESTARTS = 30, 300, 20
_PROBE_SECS = 10
_GPU = "nvidia.com/gpu"
_SCRATCH = "1Gi"  # logs and events of a role that leaves nothing else; /tmp


class ManifestSettings(NamedTuple):
    """What the gin file does not say.

    Attributes:
      name: of the run: a lower-case DNS label of at most 32 characters.
      image: of roles with TensorFlow.
      light_image: of roles without.
      storage: of a volume, such as "10Gi", by role; "" for the others (as `amounts` reads them).
      cpu, memory: that a pod requests; the same. One that takes twice the memory is ended.
      gpus: NVIDIA GPUs of a pod whose role sees GPUs.
      tls_secret: name of a Secret with tls.crt, tls.key, ca.crt and token, for tfdrl's own
        services (mutual TLS); empty: they are as open as the network policy lets them be.
      allow_config_change: volumes may be of an earlier run with other settings.
    """

    name: str
    image: str = "tfdrl:latest"
    light_image: str = "tfdrl-seed-actor:latest"
    storage: Mapping[str, str] = {"": "10Gi"}
    cpu: Mapping[str, str] = {"": "1"}
    memory: Mapping[str, str] = {"": "2Gi"}
    gpus: int = 0
    tls_secret: str = ""
    allow_config_change: bool = False


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
    run = _Run(settings, containers, _config_name(configuration, settings))
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


class _Run(NamedTuple):
    """What the pods of one run have in common; `config` is the name of its ConfigMap."""

    settings: ManifestSettings
    containers: Containers
    config: str


def _object(
    version: str, kind: str, name: str, settings: ManifestSettings, **fields
) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"tfdrl/run": settings.name}}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}


def _config_map(configuration: Configuration, settings: ManifestSettings) -> dict[str, Any]:
    """Of these settings and no others: a pod that starts later finds what the first one found."""
    data, name = {"config.gin": configuration.text}, _config_name(configuration, settings)
    return _object("v1", "ConfigMap", name, settings, data=data, immutable=True)


def _config_name(configuration: Configuration, settings: ManifestSettings) -> str:
    return f"{settings.name}-{configuration.digest[:8]}"


def _service(settings: ManifestSettings) -> dict[str, Any]:
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,  # roles wait for each other by themselves
        "selector": {"tfdrl/run": settings.name},
        "ports": [{"name": "tfdrl", "port": PORT}, {"name": "collectives", "port": CLUSTER_PORT}],
    }
    return _object("v1", "Service", settings.name, settings, spec=spec)


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
    return _object("networking.k8s.io/v1", "NetworkPolicy", settings.name, settings, spec=spec)


def _disruption_budget(program: Program, settings: ManifestSettings) -> dict[str, Any]:
    """Roles that serve are moved one at a time, each with a checkpoint; actors freely."""
    serving = sum(role.replicas for role in program.roles if role.serves)
    labels = {"tfdrl/run": settings.name, "tfdrl/serves": "yes"}
    spec = {
        "minAvailable": serving - 1,
        "unhealthyPodEvictionPolicy": "AlwaysAllow",
        "selector": {"matchLabels": labels},
    }
    return _object("policy/v1", "PodDisruptionBudget", settings.name, settings, spec=spec)


def _volume_and_job(run: _Run, role: Role, task: int) -> list[dict[str, Any]]:
    settings = run.settings
    name = replica_name(settings.name, role, task)
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": amount_of(settings.storage, role)}},
    }
    volume = {"name": "run", "persistentVolumeClaim": {"claimName": name}}
    pod = _pod(run, role, str(task), volume)
    pod["spec"].update(hostname=name, subdomain=settings.name)
    spec = {"backoffLimit": _MAX_RESTARTS, "podFailurePolicy": _failures(), "template": pod}
    return [
        _object("v1", "PersistentVolumeClaim", name, settings, spec=claim),
        _job(role, name, settings, spec),
    ]


def _indexed_job(run: _Run, role: Role) -> dict[str, Any]:
    volume = {"name": "run", "emptyDir": {"sizeLimit": _SCRATCH}}
    pod = _pod(run, role, "$(JOB_COMPLETION_INDEX)", volume)
    spec = {
        "completionMode": "Indexed",
        "completions": role.replicas,
        "parallelism": role.replicas,
        "backoffLimitPerIndex": _MAX_RESTARTS,  # a task's failures slow down itself alone
        "podFailurePolicy": _failures(),
        "template": pod,
    }
    return _job(role, role_name(run.settings.name, role), run.settings, spec)


def _job(role: Role, name: str, settings: ManifestSettings, spec: dict[str, Any]) -> dict[str, Any]:
    job = _object("batch/v1", "Job", name, settings, spec=spec)
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


def _pod(run: _Run, role: Role, task: str, volume: dict[str, Any]) -> dict[str, Any]:
    settings, containers = run.settings, run.containers
    requests = {"cpu": amount_of(settings.cpu, role), "memory": amount_of(settings.memory, role)}
    container = {
        "name": role.name.replace("_", "-"),
        "image": settings.image if role.needs_tensorflow else settings.light_image,
        "imagePullPolicy": "IfNotPresent",  # also of :latest, which one node alone may have
        "command": containers.command(role, task),
        "resources": {"requests": requests, "limits": {"memory": doubled(requests["memory"])}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": "config", "mountPath": CONFIG_DIR, "readOnly": True},
            {"name": "run", "mountPath": RUN_DIR},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    if settings.gpus and role.devices == "GPU":
        container["resources"]["limits"][_GPU] = settings.gpus
    if role.serves:
        container["ports"] = [{"containerPort": PORT}]
        container |= _probes(role, settings)
    if has_cluster(role):
        value = containers.tf_config(role, int(task))
        container["env"] = [{"name": "TF_CONFIG", "value": value}]
    spec = {
        "restartPolicy": "Never",  # the Job starts another pod, unless the exit code forbids it
        "terminationGracePeriodSeconds": int(_GRACE_SECS + role.flush_secs),
        "enableServiceLinks": False,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": [
            {"name": "config", "configMap": {"name": run.config}},
            volume,
            {"name": "tmp", "emptyDir": {"sizeLimit": _SCRATCH}},
        ],
    }
    if _GPU in container["resources"]["limits"]:
        spec["tolerations"] = [{"key": _GPU, "operator": "Exists", "effect": "NoSchedule"}]
    if containers.encrypts(role):
        mount = {"name": "tls", "mountPath": TLS_DIR, "readOnly": True}
        container["volumeMounts"].append(mount)
        secret = {"secretName": settings.tls_secret, "defaultMode": 0o440}
        spec["volumes"].append({"name": "tls", "secret": secret})
    labels = {
        "tfdrl/run": settings.name,
        "tfdrl/role": role.name,
        "tfdrl/serves": "yes" if role.serves else "no",
    }
    return {"metadata": {"labels": labels}, "spec": spec}


def _probes(role: Role, settings: ManifestSettings) -> dict[str, Any]:
    if not role.encrypts:  # Reverb and TensorFlow have no health service
        probe: dict[str, Any] = {"tcpSocket": {"port": PORT}}
    elif not settings.tls_secret:
        probe = {"grpc": {"port": PORT}}
    else:  # Kubernetes' own gRPC probes speak no TLS
        probe = {"exec": {"command": ["tfdrl-health"]}}
    probe |= {"periodSeconds": _PROBE_SECS, "timeoutSeconds": 5}
    start_secs = _START_SECS + role.flush_secs
    return {
        "startupProbe": {**probe, "failureThreshold": int(start_secs / _PROBE_SECS)},
        "readinessProbe": probe,
        "livenessProbe": {**probe, "failureThreshold": 6},
    }
