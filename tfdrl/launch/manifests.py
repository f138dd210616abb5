"""A program as Kubernetes objects: the same roles, commands and addresses as on one machine.

Each serving replica is a Job of its own, whose pod has a stable name under one headless service
and a volume that outlives it; roles of which there may be many are one indexed Job. A Job fits
how a role ends: exit code 0 completes it, 1 starts another pod, 2 and 3 (wrong configuration,
diverged) fail it for good.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import yaml

from tfdrl.configuration import Configuration
from tfdrl.errors import EXIT_CONFIGURATION, EXIT_DIVERGED, ConfigurationError
from tfdrl.topology import Program, Role

PORT, CLUSTER_PORT = 8000, 9000
_CONFIG_DIR, _RUN_DIR = "/etc/tfdrl", "/run/tfdrl"
_USER = 1000  # of the images
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,30}[a-z0-9])?")
_GRACE_SECS, _MAX_RESTARTS = 30, 20


class Settings(NamedTuple):
    """What the gin file does not say.

    Attributes:
      name: of the run: a lower-case DNS label of at most 32 characters.
      image: of roles with TensorFlow.
      light_image: of roles without.
      storage: of each volume, such as "10Gi".
      cpu, memory: that a pod requests.
    """

    name: str
    image: str = "tfdrl:latest"
    light_image: str = "tfdrl-seed-actor:latest"
    storage: str = "10Gi"
    cpu: str = "1"
    memory: str = "2Gi"


def objects(
    program: Program, configuration: Configuration, settings: Settings
) -> list[dict[str, Any]]:
    """The Kubernetes objects of one run, in the order in which they should be made.

    Raises:
      ConfigurationError: a name that Kubernetes would not take.
    """
    if not _NAME.fullmatch(settings.name):
        raise ConfigurationError(
            f"--name={settings.name!r} must be lower-case letters, digits and hyphens, a letter "
            "first, 32 characters at the most: it becomes part of host names"
        )
    found = [_config_map(configuration, settings), _service(settings), _network_policy(settings)]
    found.append(_disruption_budget(program, settings))
    for role in program.roles:
        if role.serves:
            for task in range(role.replicas):
                found += _volume_and_job(program, role, task, settings)
        else:
            found.append(_indexed_job(program, role, settings))
    return found


def text(found: Sequence[dict[str, Any]]) -> str:
    """The objects as YAML documents."""
    return yaml.dump_all(found, Dumper=_Dumper, sort_keys=False, width=1000)


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as they are, and nothing by reference."""

    def ignore_aliases(self, data):
        return True


def _represent_text(dumper: yaml.SafeDumper, data: str) -> yaml.ScalarNode:
    style = "|" if "\n" in data else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _represent_text)


def host(role: Role, task: int, settings: Settings) -> str:
    """The name by which other pods of the namespace reach a serving replica."""
    return f"{settings.name}-{role.name.replace('_', '-')}-{task}.{settings.name}"


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


def _volume_and_job(program: Program, role: Role, task: int, settings: Settings) -> list[dict]:
    name = host(role, task, settings).partition(".")[0]
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": settings.storage}},
    }
    volume = {"name": "run", "persistentVolumeClaim": {"claimName": name}}
    pod = _pod(program, role, str(task), volume, settings)
    pod["spec"].update(hostname=name, subdomain=settings.name)
    spec = {"backoffLimit": _MAX_RESTARTS, "podFailurePolicy": _failures(), "template": pod}
    return [
        _object("v1", "PersistentVolumeClaim", name, settings, spec=claim),
        _object("batch/v1", "Job", name, settings, spec=spec),
    ]


def _indexed_job(program: Program, role: Role, settings: Settings) -> dict[str, Any]:
    name = f"{settings.name}-{role.name.replace('_', '-')}"
    pod = _pod(program, role, "$(JOB_COMPLETION_INDEX)", {"name": "run", "emptyDir": {}}, settings)
    spec = {
        "completionMode": "Indexed",
        "completions": role.replicas,
        "parallelism": role.replicas,
        "backoffLimit": _MAX_RESTARTS * role.replicas,
        "podFailurePolicy": _failures(),
        "template": pod,
    }
    return _object("batch/v1", "Job", name, settings, spec=spec)


def _failures() -> dict[str, Any]:
    final = {"operator": "In", "values": [EXIT_CONFIGURATION, EXIT_DIVERGED]}
    preempted = {"type": "DisruptionTarget", "status": "True"}
    return {
        "rules": [
            {"action": "FailJob", "onExitCodes": final},
            {"action": "Ignore", "onPodConditions": [preempted]},
        ]
    }


def _pod(program: Program, role: Role, task: str, volume: dict, settings: Settings) -> dict:
    container = {
        "name": role.name.replace("_", "-"),
        "image": settings.image if role.needs_tensorflow else settings.light_image,
        "command": _command(program, role, task, settings),
        "resources": {"requests": {"cpu": settings.cpu, "memory": settings.memory}},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": "config", "mountPath": _CONFIG_DIR, "readOnly": True},
            {"name": "run", "mountPath": _RUN_DIR},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }
    if role.serves:
        probe = {"tcpSocket": {"port": PORT}, "periodSeconds": 10}
        container["ports"] = [{"containerPort": PORT}]
        container["startupProbe"] = {**probe, "failureThreshold": 30}
        container["readinessProbe"] = probe
        container["livenessProbe"] = {**probe, "failureThreshold": 6}
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
    labels = {
        "tfdrl/run": settings.name,
        "tfdrl/role": role.name,
        "tfdrl/serves": "yes" if role.serves else "no",
    }
    return {"metadata": {"labels": labels}, "spec": spec}


def _command(program: Program, role: Role, task: str, settings: Settings) -> list[str]:
    command = ["python", "-m", "tfdrl.launch.role", f"--role={role.name}", f"--task={task}"]
    command += [f"--gin_file={_CONFIG_DIR}/config.gin", f"--root_dir={_RUN_DIR}"]
    if role.serves:
        # The network policy is the lock.
        command += [f"--listen=0.0.0.0:{PORT}", "--insecure_network"]
    roles = {other.name: other for other in program.roles}
    for name in role.talks_to:
        command.append(f"--{name}={_hosts(roles[name], PORT, settings)}")
    if role.clusters and role.replicas > 1:
        command.append(f"--cluster={_hosts(role, CLUSTER_PORT, settings)}")
    return command


def _hosts(role: Role, port: int, settings: Settings) -> str:
    return ",".join(f"{host(role, task, settings)}:{port}" for task in range(role.replicas))
