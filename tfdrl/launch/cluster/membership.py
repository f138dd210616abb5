"""Where the replicas of a role that clusters find each other: --cluster, or a platform's TF_CONFIG.

TF_CONFIG is TensorFlow's own variable, which Kubeflow, Vertex AI and others set:
{"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}, "task": {"type": "worker", "index": 0}}.
The chief, if it names one, is task 0 here, and the workers follow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from tfdrl.errors import ConfigurationError
from tfdrl.topology import Address, Role

FLAG = "cluster"
VARIABLE = "TF_CONFIG"
_JOBS = ("chief", "worker")
_EXAMPLE = '{"cluster": {"worker": ["a:2222", "b:2222"]}, "task": {"type": "worker", "index": 0}}'


class Membership(NamedTuple):
    """A replica among its like: its number, and everybody's addresses (empty: no cluster)."""

    task: int
    addresses: tuple[Address, ...] = ()


def membership(
    role: Role,
    task: int | None,
    flag: str,
    environment: Mapping[str, str],
    insecure_network: bool = False,
) -> Membership:
    """Finds the place of this process among the replicas of `role`.

    Args:
      role: of this process.
      task: --task; None if it was not given: then TF_CONFIG's, or 0.
      flag: --cluster, "host:port,host:port", one for each replica; empty if it was not given.
      environment: os.environ; its TF_CONFIG is read if --cluster was not given.
      insecure_network: allows addresses that other machines can reach.

    Raises:
      ConfigurationError: addresses that are missing, too many, twice the same or reachable from
        other machines; a cluster for a role that needs none; a TF_CONFIG that says otherwise.
    """
    if not role.clusters or role.replicas == 1:
        if flag:
            raise ConfigurationError(f"--{FLAG}={flag}: {_why_not(role)}; leave it out")
        return Membership(task or 0)
    if flag:
        found, source = Membership(task or 0, _addresses(flag.split(","))), f"--{FLAG}={flag}"
    elif environment.get(VARIABLE):
        found, source = _of_platform(environment[VARIABLE], task), VARIABLE
    else:
        raise ConfigurationError(
            f"--{FLAG} is missing; the {role.replicas} {role.name} processes talk to each other: "
            f"give a host:port for each, separated by commas, to all of them the same list"
        )
    _check(role, found, source, insecure_network)
    return found


def _why_not(role: Role) -> str:
    if role.clusters:
        return f"there is one {role.name} process only, which has nobody to talk to"
    return f"{role.name} processes do not talk to each other"


def _addresses(texts: list[str]) -> tuple[Address, ...]:
    return tuple(Address.parse(text.strip(), FLAG) for text in texts)


def _check(role: Role, found: Membership, source: str, insecure_network: bool) -> None:
    count = len(found.addresses)
    if count != role.replicas:
        raise ConfigurationError(
            f"{source} has {count} addresses; the gin file asks for {role.replicas} {role.name} "
            "processes: give one for each, to all of them the same list"
        )
    if len(set(found.addresses)) < count:
        raise ConfigurationError(f"{source} has an address twice; each {role.name} has its own")
    far = [str(address) for address in found.addresses if not address.is_loopback]
    if far and not insecure_network:
        raise ConfigurationError(
            f"{source}: {', '.join(far)} can be reached from other machines, without encryption or "
            "authentication; if the network is trusted, add --insecure_network"
        )


def _of_platform(text: str, task: int | None) -> Membership:
    try:
        settings = json.loads(text)
        cluster, own = settings["cluster"], settings["task"]
        jobs = {job: [str(address) for address in cluster.get(job, ())] for job in _JOBS}
        kind, index = own["type"], int(own["index"])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigurationError(
            f"{VARIABLE}={_shortened(text)} cannot be read ({type(error).__name__}: {error}); it "
            f"should look like {_EXAMPLE}. Correct it, or give --{FLAG}"
        ) from None
    here = _task(kind, index, jobs)
    if task is not None and task != here:
        raise ConfigurationError(
            f"--task={task}, but {VARIABLE} says {kind} {index}, which is task {here}: leave "
            f"--task out, or give --{FLAG}, which is used in place of {VARIABLE}"
        )
    try:
        return Membership(here, _addresses(jobs["chief"] + jobs["worker"]))
    except ConfigurationError as error:
        raise ConfigurationError(f"{VARIABLE}: {error}") from None


def _task(kind: Any, index: int, jobs: Mapping[str, list[str]]) -> int:
    if kind not in _JOBS or not 0 <= index < len(jobs[kind]):
        there = ", ".join(f"{len(found)} {job}" for job, found in jobs.items())
        raise ConfigurationError(
            f"{VARIABLE} says that this is {kind} {index}; its cluster has {there}: it must be one "
            f"of them, or give --{FLAG}"
        )
    return index + (len(jobs["chief"]) if kind == "worker" else 0)


def _shortened(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else f"{text[:limit]}..."
