"""The Slurm job that this process runs in: its nodes, and what of them it has."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tfdrl.errors import ConfigurationError
from tfdrl.launch.placement import Node

_COMMAND_SECS = 30.0
_PART = re.compile(r"Nodes=(\S+) CPU_IDs=(\S+) Mem=(\d+) GRES=(\S*)")
_NODE = re.compile(r"NodeName=(\S+)")
_FIELD = r"\b{}=(\S+)"
_GPU = re.compile(r"gpu(?::[^:,(]+)?:(\d+)")
#: States of a node, as `scontrol` writes them, that nothing runs in.
_GONE = ("DOWN", "FAIL", "NOT_RESPONDING", "POWER", "UNKNOWN")


class Job(NamedTuple):
    """One allocation of nodes, by its number."""

    number: str

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Job:
        """The job of this process. Raises ConfigurationError outside one."""
        number = environment.get("SLURM_JOB_ID", "")
        if not number:
            raise ConfigurationError(
                "--launcher=slurm: this is no Slurm job (SLURM_JOB_ID is not set); run it inside "
                "one, as with `salloc --nodes=4 tfdrl-train --launcher=slurm ...`, or submit the "
                "file that `tfdrl-manifests --format=slurm` writes with sbatch"
            )
        return cls(number)

    def nodes(self) -> list[Node]:
        """Its nodes that are up, with the cores, GPUs and memory that it has of each.

        Raises ConfigurationError if Slurm does not say so.
        """
        text = call("scontrol", "show", "job", "--details", self.number)
        parts = list(parse_parts(text))
        if not parts:
            raise ConfigurationError(f"Slurm's job {self.number} has no nodes (any more)")
        listed = ",".join(names for names, *_ in parts)
        text = call("scontrol", "show", "node", "--oneliner", listed)
        hosts, gone = parse_addresses(text), parse_gone(text)
        return [
            Node(name, hosts.get(name, name), cpus, gpus, memory_mb or None)
            for names, cpus, gpus, memory_mb in parts
            for name in hostnames(names)
            if name not in gone
        ]

    def are_gone(self, names: Sequence[str]) -> set[str]:
        """Those of its nodes that nothing runs on any more."""
        return parse_gone(call("scontrol", "show", "node", "--oneliner", ",".join(names)))

    def cancel_step(self, name: str) -> None:
        """Ends the step of that name, if it runs. Raises ConfigurationError if Slurm cannot."""
        listed = call("squeue", "--steps", "--noheader", "--jobs", self.number, "--format=%i %j")
        for line in listed.splitlines():
            step, _, there = line.strip().partition(" ")
            if there.strip() == name:
                call("scancel", step)

    def is_leaving(self) -> bool:
        """Whether another job preempts it, and it runs for the time of grace that is left."""
        return parse_leaving(call("scontrol", "show", "job", self.number))

    def is_ending(self) -> bool:
        """Whether it runs no more, or not for long."""
        text = call("scontrol", "show", "job", self.number)
        return parse_leaving(text) or "JobState=RUNNING" not in text

    def requeue(self) -> None:
        """Puts it into the queue again. Raises ConfigurationError if Slurm refuses."""
        call("scontrol", "requeue", self.number)


def parse_parts(text: str) -> list[tuple[str, int, int, int]]:
    """Reads `scontrol show job --details`: lists such as n[1-3]; cpus, gpus, MB of each node."""
    return [
        (names, _count(cpu_ids), sum(map(int, _GPU.findall(gres))), int(memory_mb))
        for names, cpu_ids, memory_mb, gres in _PART.findall(text)
    ]


def parse_addresses(text: str) -> dict[str, str]:
    """Reads `scontrol show node --oneliner`: where each node is reached."""
    found = {}
    for line in text.splitlines():
        name, address = _NODE.search(line), re.search(_FIELD.format("NodeAddr"), line)
        if name and address:
            found[name[1]] = address[1]
    return found


def parse_gone(text: str) -> set[str]:
    """Reads the same: nodes that are down, or do not answer."""
    found = set()
    for line in text.splitlines():
        name, state = _NODE.search(line), re.search(_FIELD.format("State"), line)
        # A star: the node has not answered for a while.
        if name and state and (state[1].endswith("*") or any(w in state[1] for w in _GONE)):
            found.add(name[1])
    return found


def parse_leaving(text: str) -> bool:
    """Reads `scontrol show job`: a job that was preempted, and that Slurm has not ended yet."""
    preempted = re.search(r"\bPreemptTime=\d", text)
    return preempted is not None and re.search(r"\bJobState=RUNNING\b", text) is not None


def hostnames(names: str) -> list[str]:
    """The names of a list such as n[1-3]."""
    return (
        [names]
        if "[" not in names and "," not in names
        else (call("scontrol", "show", "hostnames", names).split())
    )


def _count(ids: str) -> int:
    """Of "0-3,8"."""
    ends = [part.partition("-") for part in ids.split(",")]
    return sum(int(last or first) - int(first) + 1 for first, _, last in ends)


def call(*command: str) -> str:
    """What a command of Slurm's prints. Raises ConfigurationError if it fails."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_COMMAND_SECS,
        )
    except FileNotFoundError:
        raise ConfigurationError(
            f"--launcher=slurm: there is no {command[0]} here; Slurm's commands must be on PATH"
        ) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigurationError(f"{' '.join(command)}: {error}") from None
    if done.returncode:
        raise ConfigurationError(f"{' '.join(command)} has failed: {done.stderr.strip()[-300:]}")
    return done.stdout
