"""run.json: what a run is, as data: its program, limits, versions, machine, and its command."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from typing import Any, NamedTuple

from tfdrl import __version__
from tfdrl.experiment import Experiment
from tfdrl.topology import Program, Role

FILE = "run.json"
_LIBRARIES = ("tensorflow", "tf-agents", "dm-reverb", "keras", "numpy", "gymnasium", "grpcio")


class RunFacts(NamedTuple):
    """What is known of a run from its start on.

    program       who talks to whom
    solved_return the mean return at which training ends; None: it goes on
    limits        of the training, by name; those that are set
    seed          of the run
    command       that continues it
    versions      of tfdrl, Python and libraries, by name
    machine       of the launcher, in words, by name
    cores         that the launcher may use
    started_secs  of the last start, Unix time
    """

    program: Program
    solved_return: float | None
    limits: dict[str, float]
    seed: int
    command: list[str]
    versions: dict[str, str]
    machine: dict[str, str]
    cores: int
    started_secs: float


def of(experiment: Experiment, program: Program, command: Sequence[str]) -> RunFacts:
    """The facts of a run that begins here and now."""
    names = ("max_frames", "max_learner_steps", "max_minutes")
    limits = {name: getattr(experiment, name) for name in names}
    return RunFacts(
        program,
        experiment.solved_return,
        {name: value for name, value in limits.items() if value is not None},
        experiment.seed,
        list(command),
        _versions(),
        _machine(),
        len(os.sched_getaffinity(0)),
        time.time(),
    )


def write(root_dir: pathlib.Path, facts: RunFacts) -> None:
    """Writes root_dir/run.json; a disk that is full is no reason to fail."""
    data = facts._replace(program=dataclasses.asdict(facts.program))._asdict()
    partial = root_dir / f"{FILE}.partial"
    with contextlib.suppress(OSError):
        partial.write_text(json.dumps(data, indent=1) + "\n")
        partial.replace(root_dir / FILE)


def read(root_dir: pathlib.Path) -> RunFacts | None:
    """The facts of the run in a directory; None if it has none that can be read."""
    with contextlib.suppress(OSError, ValueError, TypeError, KeyError):
        data = json.loads((root_dir / FILE).read_text())
        return RunFacts(**{**data, "program": _program(data["program"])})
    return None


def _program(data: dict[str, Any]) -> Program:
    roles = tuple(
        Role(**{**role, "talks_to": tuple(role["talks_to"])}) for role in data.pop("roles")
    )
    threads = tuple((name, count) for name, count in data.pop("threads"))
    return Program(roles=roles, threads=threads, **data)


def _versions() -> dict[str, str]:
    found = {"tfdrl": __version__, "Python": platform.python_version()}
    for name in _LIBRARIES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _machine() -> dict[str, str]:
    found = {
        "system": f"{platform.system()} {platform.release()}",
        "processor": _processor(),
        "cores": f"{len(os.sched_getaffinity(0))} of {os.cpu_count()}",
    }
    if sys.platform == "linux":
        memory_bytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        found["memory"] = f"{memory_bytes / 1e9:,.0f} GB"
    return found


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.machine()
