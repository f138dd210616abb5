"""Programs as a Compose file: each role a container of one host, each program a profile.

The roles of a program share a network that leads nowhere else, and a volume for what the run
leaves behind, which a TensorBoard of its own shows.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tfdrl import configuration
from tfdrl.errors import ConfigurationError
from tfdrl.launch.cluster.role_commands import (
    CONFIG_DIR,
    RUN_DIR,
    Containers,
    has_cluster,
    replica_name,
)
from tfdrl.topology import Program

_GRACE_SECS, _MAX_RESTARTS = 15, 5
_TENSORBOARD_PORT = 6006
#: Of every container: what the images were made for.
_CONFINED = {
    "read_only": True,
    "tmpfs": ["/tmp"],
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
}


class Run(NamedTuple):
    """One program of a file.

    Attributes:
      name: of its profile; part of host names.
      program: its roles.
      run_flags: that say what to run.
      gin_directory: on the host, where the gin files are; empty: they are tfdrl's own.
    """

    name: str
    program: Program
    run_flags: Sequence[str]
    gin_directory: str = ""


def gin_flags(gin_files: Sequence[str], bindings: Sequence[str]) -> tuple[list[str], str]:
    """Flags that mean in a container what they mean here, and the directory that they need.

    Returns the flags, and `Run.gin_directory`.

    Raises:
      ConfigurationError: gin files of one's own in several directories.
    """
    own = set(configuration.gin_file_names())
    flags, directories = [], set()
    for name in gin_files:
        path = configuration.find_gin_file(name)
        if name not in own:
            directories.add(str(path.parent))
            name = f"{CONFIG_DIR}/{path.name}"
        flags.append(f"--gin_file={name}")
    if len(directories) > 1:
        raise ConfigurationError(
            f"--gin_file: the containers see one directory of gin files, and these are in "
            f"{' and '.join(sorted(directories))}; put them into one"
        )
    flags += [f"--gin_bindings={binding}" for binding in bindings]
    return flags, "".join(directories)


def document(runs: Sequence[Run], image: str, light_image: str, gpus: int = 0) -> dict[str, Any]:
    """The Compose file of these runs, as a dictionary; `gpus` for each role that sees GPUs."""
    services: dict[str, Any] = {}
    for run in runs:
        services.update(_services(run, {True: image, False: light_image}, gpus))
        services[f"{run.name}-tensorboard"] = _tensorboard(run, image)
    return {
        "services": services,
        "networks": {run.name: {"internal": True} for run in runs} | {"outside": {}},
        "volumes": {run.name: {} for run in runs},
    }


def _services(run: Run, images: Mapping[bool, str], gpus: int) -> dict[str, Any]:
    # Compose replaces variables: a dollar of ours is written twice.
    run_flags = [flag.replace("$", "$$") for flag in run.run_flags]
    host = functools.partial(replica_name, run.name)
    containers = Containers(run.program, run_flags, host)
    found = {}
    for role in run.program.roles:
        for task in range(role.replicas):
            found[host(role, task)] = service = {
                "profiles": [run.name],
                "image": images[role.needs_tensorflow],
                "entrypoint": containers.command(role, task),
                "networks": [run.name],
                "volumes": [f"{run.name}:{RUN_DIR}"],
                "restart": f"on-failure:{_MAX_RESTARTS}",
                "stop_grace_period": f"{_GRACE_SECS + role.flush_secs:g}s",
                **_CONFINED,
            }
            if run.gin_directory:
                service["volumes"].append(f"{run.gin_directory}:{CONFIG_DIR}:ro")
            if gpus and role.devices == "GPU":
                wanted = [{"driver": "nvidia", "count": gpus, "capabilities": ["gpu"]}]
                service["deploy"] = {"resources": {"reservations": {"devices": wanted}}}
            if has_cluster(role):
                service["environment"] = {"TF_CONFIG": containers.tf_config(role, task)}
    return found


def _tensorboard(run: Run, image: str) -> dict[str, Any]:
    """Of this host's browsers only: TensorBoard asks nobody who they are."""
    return {
        "profiles": [run.name],
        "image": image,
        "entrypoint": [
            "tensorboard",
            f"--logdir={RUN_DIR}",
            f"--port={_TENSORBOARD_PORT}",
            "--bind_all",
        ],
        "networks": ["outside"],
        "ports": [f"127.0.0.1:${{TENSORBOARD_PORT:-{_TENSORBOARD_PORT}}}:{_TENSORBOARD_PORT}"],
        "volumes": [f"{run.name}:{RUN_DIR}:ro"],
        "healthcheck": {"disable": True},
        **_CONFINED,
    }
