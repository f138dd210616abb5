"""The command of a role's process in a container: the flags of `tfdrl.launch.role_flags`."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Callable, NamedTuple

from tfdrl.errors import ConfigurationError
from tfdrl.launch.role_addresses import ends_after_chief
from tfdrl.topology import Program, Role

#: Where a serving role listens, and where the replicas of one that clusters find each other.
PORT, CLUSTER_PORT = 8000, 9000
#: Of a role that a signal ended, as a shell would say of SIGTERM: 0 would end the run.
STOPPED_EXIT_CODE = 128 + 15
CONFIG_DIR, TLS_DIR, RUN_DIR = "/etc/tfdrl", "/etc/tfdrl-tls", "/run/tfdrl"
#: What a role does for TLS, by file of `TLS_DIR`; names as in a Secret of type kubernetes.io/tls.
TLS_FILES = {
    "tls_certificate": "tls.crt",
    "tls_key": "tls.key",
    "tls_ca": "ca.crt",
    "token_file": "token",
}
_NAME = re.compile(r"[a-z]([-a-z0-9]{0,30}[a-z0-9])?")


def check_name(name: str) -> str:
    """Returns the name of a run. Raises ConfigurationError if it cannot begin host names."""
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"--name={name!r} must be lower-case letters, digits and hyphens, a letter first, "
            "32 characters at the most: it becomes part of host names"
        )
    return name


def replica_name(run: str, role: Role, task: int) -> str:
    """The name of a replica's container or pod, which others reach it by."""
    return f"{role_name(run, role)}-{task}"


def role_name(run: str, role: Role) -> str:
    """The part of its replicas' names that is the same."""
    return f"{run}-{role.name.replace('_', '-')}"


class Containers(NamedTuple):
    """What the containers of one run have in common.

    Attributes:
      program: whose roles they run.
      run_flags: that say what to run.
      host: `host(role, task)` -> the name by which the others reach a serving replica.
      has_tls: whether `TLS_DIR` has the files of `TLS_FILES`.
    """

    program: Program
    run_flags: Sequence[str]
    host: Callable[[Role, int], str]
    has_tls: bool = False

    def command(self, role: Role, task: int | str) -> list[str]:
        """The command of a replica; `task` may be what the platform replaces by a number."""
        command = ["python", "-m", "tfdrl.launch.role", f"--role={role.name}", f"--task={task}"]
        command += [*self.run_flags, f"--root_dir={RUN_DIR}"]
        command.append(f"--stopped_exit_code={STOPPED_EXIT_CODE}")
        if self.encrypts(role):
            command += [f"--{flag}={TLS_DIR}/{name}" for flag, name in TLS_FILES.items()]
        if role.serves:
            command.append(f"--listen=0.0.0.0:{PORT}")
            if not (self.has_tls and role.encrypts) or has_cluster(role):
                command.append("--insecure_network")  # the network is the lock
        if ends_after_chief(self.program, role):
            command.append(f"--chief={self.hosts(self.program.role(self.program.chief), PORT)[0]}")
        for name in role.talks_to:
            hosts = self.hosts(self.program.role(name), PORT)
            command.append(f"--{name}={','.join(hosts)}")
        return command

    def encrypts(self, role: Role) -> bool:
        """Whether the role serves, or talks to, what has TLS here."""
        can = {other.name for other in self.program.roles if other.encrypts}
        asked = {self.program.chief} if ends_after_chief(self.program, role) else set()
        return self.has_tls and not can.isdisjoint({role.name, *role.talks_to, *asked})

    def tf_config(self, role: Role, task: int) -> str:
        """TensorFlow's own variable: where the replicas of a role that clusters are."""
        cluster = {"worker": self.hosts(role, CLUSTER_PORT)}
        return json.dumps({"cluster": cluster, "task": {"type": "worker", "index": task}})

    def hosts(self, role: Role, port: int) -> list[str]:
        """The addresses of all replicas of a role."""
        return [f"{self.host(role, task)}:{port}" for task in range(role.replicas)]


def has_cluster(role: Role) -> bool:
    """Whether its replicas talk to each other, and need TF_CONFIG to find each other."""
    return role.clusters and role.replicas > 1
