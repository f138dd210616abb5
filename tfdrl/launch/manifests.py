"""A program as Kubernetes objects: the same roles, commands and addresses as on one machine.

Each serving replica is a Job of its own, whose pod has a stable name under one headless service
and a volume that outlives it; roles of which there may be many are one indexed Job. A Job fits
how a role ends: exit code 0 completes it, 1 starts another pod, 2 and 3 (wrong configuration,
diverged) fail it for good, and a role that its node no longer wants says 143, not 0.
"""

from __future__ import annotations

import functools
from typing import Any, NamedTuple

from tfdrl.configuration import Configuration
from tfdrl.errors import EXIT_CONFIGURATION, EXIT_DIVERGED
from tfdrl.launch.role_commands import (
    CLUSTER_PORT,
    CONFIG_DIR,
    PORT,
    RUN_DIR,
    TLS_DIR,
    Containers,
    check_name,
    has_cluster,
    replica_name,
    role_name,
)
from tfdrl.topology import Program, Role

_USER = 1000  # of the images
_GRACE_SECS, _MAX_RESTARTS = 30, 20
_PREEMPTED = 128 + 15  # as a shell would say of SIGTERM


class Settings(NamedTuple):
    """What the gin file does not say.

    Attributes:
      name: of the run: a lower-case DNS label of at most 32 characters.
      image: of roles with TensorFlow.
      light_image: of roles without.
      storage: of each volume, such as "10Gi".
      cpu, memory: that a pod requests.
      tls_secret: name of a Secret with tls.crt, tls.key, ca.crt and token, for tfdrl's own
        services (mutual TLS); empty: they are as open as the network policy lets them be.
    """

    name: str
    image: str = "tfdrl:latest"
    light_image: str = "tfdrl-seed-actor:latest"
    storage: str = "10Gi"
    cpu: str = "1"
    memory: str = "2Gi"
    tls_secret: str = ""


def objects(
    program: Program, configuration: Configuration, settings: Settings
) -> list[dict[str, Any]]:
    """The Kubernetes objects of one run, in the order in which they should be made.

    Raises:
      ConfigurationError: a name that Kubernetes would not take.
    """
    check_name(settings.name)
    found = [_config_map(configuration, settings), _service(settings), _network_policy(settings)]
    found.append(_disruption_budget(program, settings))
    gin_flags = [f"--gin_file={CONFIG_DIR}/config.gin"]
    where = functools.partial(host, settings=settings)
    containers = Containers(program, gin_flags, where, bool(settings.tls_secret))
    for role in program.roles:
        if role.serves:
            for task in range(role.replicas):
                found += _volume_and_job(containers, role, task, settings)
        else:
            found.append(_indexed_job(containers, role, settings))
    return found


def host(role: Role, task: int, settings: Settings) -> str:
    """The name by which other pods of the namespace reach a serving replica."""
    return f"{replica_name(settings.name, role, task)}.{settings.name}"


def _object(version: str, kind: str, name: str, settings: Settings, **fields) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"tfdrl/run": settings.name}}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **fields}


def _config_map(configuration: Configuration, settings: Settings) -> dict[str, Any]:
    data = {"config.gin": configuration.text}
    return _object("v1", "ConfigMap", settings.name, settings, data=data)


def _service(settings: Settings) -> dict[str, Any]:
    spec = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,  # roles wait for each other by themselves
        "selector": {"tfdrl/run": settings.name},
        "ports": [{"name": "tfdrl", "port": PORT}, {"name": "collectives", "port": CLUSTER_PORT}],
    }
    return _object("v1", "Service", settings.name, settings, spec=spec)


def _network_policy(settings: Settings) -> dict[str, Any]:
    """Reverb's and TensorFlow's servers have no authentication: only the run's own pods may in."""
    own = {"matchLabels": {"tfdrl/run": settings.name}}
    spec = {
        "podSelector": own,
        "policyTypes": ["Ingress"],
        "ingress": [{"from": [{"podSelector": own}]}],
    }
    return _object("networking.k8s.io/v1", "NetworkPolicy", settings.name, settings, spec=spec)


def _disruption_budget(program: Program, settings: Settings) -> dict[str, Any]:
    """Nobody drains a node under a serving role of its own accord; actors may be moved freely."""
    serving = sum(role.replicas for role in program.roles if role.serves)
    labels = {"tfdrl/run": settings.name, "tfdrl/serves": "yes"}
    spec = {"minAvailable": serving, "selector": {"matchLabels": labels}}
    return _object("policy/v1", "PodDisruptionBudget", settings.name, settings, spec=spec)


def _volume_and_job(
    containers: Containers, role: Role, task: int, settings: Settings
) -> list[dict[str, Any]]:
    name = replica_name(settings.name, role, task)
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": settings.storage}},
    }
    volume = {"name": "run", "persistentVolumeClaim": {"claimName": name}}
    pod = _pod(containers, role, str(task), volume, settings)
    pod["spec"].update(hostname=name, subdomain=settings.name)
    spec = {"backoffLimit": _MAX_RESTARTS, "podFailurePolicy": _failures(), "template": pod}
    return [
        _object("v1", "PersistentVolumeClaim", name, settings, spec=claim),
        _job(role, name, settings, spec),
    ]


def _indexed_job(containers: Containers, role: Role, settings: Settings) -> dict[str, Any]:
    name = role_name(settings.name, role)
    volume = {"name": "run", "emptyDir": {}}
    pod = _pod(containers, role, "$(JOB_COMPLETION_INDEX)", volume, settings)
    spec = {
        "completionMode": "Indexed",
        "completions": role.replicas,
        "parallelism": role.replicas,
        "backoffLimit": _MAX_RESTARTS * role.replicas,
        "podFailurePolicy": _failures(),
        "template": pod,
    }
    return _job(role, name, settings, spec)


def _job(role: Role, name: str, settings: Settings, spec: dict[str, Any]) -> dict[str, Any]:
    job = _object("batch/v1", "Job", name, settings, spec=spec)
    job["metadata"]["labels"]["tfdrl/role"] = role.name  # for kustomize's patches
    return job


def _failures() -> dict[str, Any]:
    final = {"operator": "In", "values": [EXIT_CONFIGURATION, EXIT_DIVERGED]}
    preempted = {"type": "DisruptionTarget", "status": "True"}
    return {
        "rules": [
            {"action": "FailJob", "onExitCodes": final},
            {"action": "Ignore", "onPodConditions": [preempted]},
        ]
    }


def _pod(
    containers: Containers, role: Role, task: str, volume: dict, settings: Settings
) -> dict[str, Any]:
    container = {
        "name": role.name.replace("_", "-"),
        "image": settings.image if role.needs_tensorflow else settings.light_image,
        "command": [*containers.command(role, task), f"--stopped_exit_code={_PREEMPTED}"],
        "resources": {"requests": {"cpu": settings.cpu, "memory": settings.memory}},
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
        "securityContext": {"runAsNonRoot": True, "runAsUser": _USER, "fsGroup": _USER},
        "containers": [container],
        "volumes": [
            {"name": "config", "configMap": {"name": settings.name}},
            volume,
            {"name": "tmp", "emptyDir": {}},
        ],
    }
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


def _probes(role: Role, settings: Settings) -> dict[str, Any]:
    if not role.encrypts:  # Reverb and TensorFlow have no health service
        probe: dict[str, Any] = {"tcpSocket": {"port": PORT}}
    elif not settings.tls_secret:
        probe = {"grpc": {"port": PORT}}
    else:  # Kubernetes' own gRPC probes speak no TLS
        probe = {"exec": {"command": ["tfdrl-health"]}}
    probe |= {"periodSeconds": 10, "timeoutSeconds": 5}
    return {
        "startupProbe": {**probe, "failureThreshold": 30},
        "readinessProbe": probe,
        "livenessProbe": {**probe, "failureThreshold": 6},
    }
