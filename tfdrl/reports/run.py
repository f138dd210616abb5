"""What a run has left in its directory, read as data."""

from __future__ import annotations

import contextlib
import fcntl
import json
import pathlib
import re
from typing import Any, NamedTuple

import numpy as np

from tfdrl.errors import ConfigurationError
from tfdrl.launch import curves, run_directory, run_facts
from tfdrl.launch.run_facts import RunFacts
from tfdrl.reports import events
from tfdrl.reports.events import NOTHING, Series
from tfdrl.rpc import usage_log
from tfdrl.rpc.usage import Usage
from tfdrl.topology import Program, Role

#: Settings of environments that change how they are trained on or run, not what is to be solved.
_NOT_OF_THE_TASK = frozenset(
    [
        "training_wrappers",
        "clip_reward",
        "life_loss",
        "vectorization",
        "threads",
        "backend",
        "render",
        "frame_stack",
        "screen_size",
        "full_action_space",
    ]
)
#: Processes of one role that are read; of more the means are of these.
MOST_PROCESSES = 16


class Run(NamedTuple):
    """One run.

    name         as the page calls it
    directory    of the run
    facts        of its start
    config       text of its gin settings
    evaluations  rows of `curves.read`
    result       what the learner wrote at its end; empty before
    goes_on      whether a launcher holds the directory
    scalars      by role, of each process that was read: its events, by tag
    usage        by role, of each process that was read: its looks, of its starts one by one
    """

    name: str
    directory: pathlib.Path
    facts: RunFacts
    config: str
    evaluations: list[dict[str, float]]
    result: dict[str, Any]
    goes_on: bool
    scalars: dict[str, list[dict[str, Series]]]
    usage: dict[str, list[list[list[Usage]]]]

    @property
    def program(self) -> Program:
        return self.facts.program

    @property
    def architecture(self) -> str:
        return self.program.name

    @property
    def chief(self) -> str:
        """The role that counts for the run."""
        return self.program.chief

    def role(self, name: str) -> Role | None:
        """The role of that name, if there is one."""
        return next((role for role in self.program.roles if role.name == name), None)

    def series(self, tag: str, role: str = "") -> list[Series]:
        """A scalar of each process of a role (the chief's by default) that wrote it."""
        processes = self.scalars.get(role or self.chief, [])
        return [scalars[tag] for scalars in processes if tag in scalars]

    def of_chief(self, tag: str) -> Series:
        """The chief's scalar; of several learners that of the first."""
        return next(iter(self.series(tag)), NOTHING)

    @property
    def window(self) -> tuple[float, float]:
        """From the first learner step or frame to the last event: Unix seconds.

        What a process uses before, to build its networks, is no measure of the architecture.
        """
        frames = self.of_chief("environment/frames")
        has_begun = (frames.values > 0) | (frames.steps > 0)
        secs = frames.secs[has_begun]
        return (float(secs[0]), float(secs[-1])) if len(secs) > 1 else (0.0, np.inf)


def read(directory: pathlib.Path, name: str = "") -> Run:
    """Reads a run. Raises ConfigurationError if the directory is none."""
    directory = pathlib.Path(directory)
    facts = run_facts.read(directory)
    config = directory / run_directory.CONFIG
    if not config.is_file():
        raise ConfigurationError(
            f"{directory} is no run: it has no {run_directory.CONFIG}; give the --root_dir of a "
            "training that was started by tfdrl-train"
        )
    if facts is None:
        raise ConfigurationError(
            f"{directory} has no {run_facts.FILE}, which says who talks to whom in it: its roles "
            "were started one by one, or by an older version of tfdrl"
        )
    roles = [role.name for role in facts.program.roles]
    return Run(
        name or directory.resolve().name,
        directory,
        facts,
        config.read_text(errors="replace"),
        curves.read(directory),
        _result(directory),
        _is_held(directory),
        {role: _events_of(directory, role) for role in roles},
        {role: _usage_of(directory, role) for role in roles},
    )


def task_of(config: str) -> str:
    """The environment of a gin configuration in words; the same words are the same task.

    What only training sees, such as clipped rewards, is no part of the task.
    """
    lines = dict(re.findall(r"^(?:\w+/)*([\w.]+) = (.*)$", config, re.MULTILINE))
    found = [value for name, value in lines.items() if name.endswith(".environment")]
    environment = found[0].strip("@()") if found else "an environment that is not named"
    settings = {
        name.partition(".")[2]: value
        for name, value in lines.items()
        if name.startswith(f"{environment.rpartition('.')[2]}.")
    }
    title = settings.pop("id", environment).strip("'\"")
    shown = [f"{n} = {v}" for n, v in sorted(settings.items()) if n not in _NOT_OF_THE_TASK]
    rest = ", ".join(shown)
    return f"{title} ({rest})" if rest else title


def _result(directory: pathlib.Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads((directory / run_directory.RESULT).read_text())
        return found if isinstance(found, dict) else {}
    return {}


def _is_held(directory: pathlib.Path) -> bool:
    """Whether a launcher has its lock on the directory; it is not taken from it."""
    with contextlib.suppress(OSError), (directory / "launcher.lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _numbered(directory: pathlib.Path, role: str, ending: str) -> list[pathlib.Path]:
    """Those of the role's first processes, in the order of their tasks."""
    form = re.compile(rf"{re.escape(role)}-(\d+){re.escape(ending)}")
    found = {}
    with contextlib.suppress(OSError):
        for path in directory.iterdir():
            if match := form.fullmatch(path.name):
                found[int(match[1])] = path
    return [found[task] for task in sorted(found)[:MOST_PROCESSES]]


def _events_of(directory: pathlib.Path, role: str) -> list[dict[str, Series]]:
    paths = _numbered(directory / run_directory.TENSORBOARD, role, "")
    return [events.read(path) for path in paths]


def _usage_of(directory: pathlib.Path, role: str) -> list[list[list[Usage]]]:
    paths = _numbered(directory / usage_log.DIRECTORY, role, ".jsonl")
    return [usage_log.read(path) for path in paths]
