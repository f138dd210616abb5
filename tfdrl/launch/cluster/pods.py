"""The pod of one replica: its command, what it may take, its volumes, its probes."""

from __future__ import annotations

from typing import Any, NamedTuple

from tfdrl.launch.cluster.amounts import amount_of, doubled
from tfdrl.launch.cluster.manifest_settings import ManifestSettings
from tfdrl.launch.cluster.role_commands import (
    CONFIG_DIR,
    PORT,
    RUN_DIR,
    TLS_DIR,
    Containers,
    has_cluster,
)
from tfdrl.topology import Role

#: Of logs and events of a role that leaves nothing else, and of /tmp.
SCRATCH = "1Gi"
_USER = 1000  # of the images
_GRACE_SECS, _START_SECS, _PROBE_SECS = 30, 300, 10
_GPU = "nvidia.com/gpu"
_TENSORBOARD_PORT = 6006


class Run(NamedTuple):
    """What the pods of one run have in common; `config` is the name of its ConfigMap."""

    settings: ManifestSettings
    containers: Containers
    config: str


def pod(run: Run, role: Role, task: str, volume: dict[str, Any]) -> dict[str, Any]:
    """A pod template.

    Args:
      run: that it belongs to.
      role: of its process.
      task: number of the replica, or what Kubernetes replaces by it.
      volume: named "run", for what the process writes.
    """
    settings, containers = run.settings, run.containers
    requests = {"cpu": amount_of(settings.cpu, role), "memory": amount_of(settings.memory, role)}
    container = {
        "name": role.name.replace("_", "-"),
        "image": settings.image if role.needs_tensorflow else settings.light_image,
        "imagePullPolicy": "IfNotPresent",  # also of :latest, which one node alone may have
        "command": containers.command(role, task),
        "resources": {"requests": requests, "limits": {"memory": doubled(requests["memory"])}},
        "securityContext": _confined(),
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
            {"name": "tmp", "emptyDir": {"sizeLimit": SCRATCH}},
        ],
    }
    if _GPU in container["resources"]["limits"]:
        spec["tolerations"] = [{"key": _GPU, "operator": "Exists", "effect": "NoSchedule"}]
    if containers.encrypts(role):
        mount = {"name": "tls", "mountPath": TLS_DIR, "readOnly": True}
        container["volumeMounts"].append(mount)
        secret = {"secretName": settings.tls_secret, "defaultMode": 0o440}
        spec["volumes"].append({"name": "tls", "secret": secret})
    if settings.packages:
        settings.packages.add_to(spec)
    selector = settings.node_selector
    of_node = {**selector.get("", {}), **selector.get(role.name, {})}
    if of_node:
        spec["nodeSelector"] = of_node
    if settings.pull_secret:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.pull_secret]
    if settings.tensorboard and role.name == containers.program.chief and task == "0":
        spec["initContainers"] = [_tensorboard(settings)]
    labels = {
        "tfdrl/run": settings.name,
        "tfdrl/role": role.name,
        "tfdrl/serves": "yes" if role.serves else "no",
    }
    return {"metadata": {"labels": labels}, "spec": spec}


def _confined() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def _tensorboard(settings: ManifestSettings) -> dict[str, Any]:
    """Beside the process whose events it shows, on loopback, where kubectl port-forward reaches it.

    As an init container that goes on (a sidecar), it does not keep the pod from completing.
    """
    command = ["tensorboard", f"--logdir={RUN_DIR}", "--host=127.0.0.1"]
    return {
        "name": "tensorboard",
        "image": settings.image,
        "imagePullPolicy": "IfNotPresent",
        "restartPolicy": "Always",
        "command": [*command, f"--port={_TENSORBOARD_PORT}"],
        "resources": {"requests": {"cpu": "100m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": _confined(),
        "volumeMounts": [
            {"name": "run", "mountPath": RUN_DIR, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
        ],
    }


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
