"""Whole local runs as their user starts them, and what every architecture's run has to show.

`train` starts one, watches it through the status that its chief gives, kills roles on the way,
and returns what came of it; `check_solved`, `check_files` and `continue_run` hold for any of them.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import time
from typing import Any, NamedTuple

import preloaded
from paths import CHECKOUT, python_path

from tfdrl.errors import TfdrlError
from tfdrl.launch.process import arguments_of
from tfdrl.reports import measured, page, run
from tfdrl.rpc.run_client import TrainingClient
from tfdrl.rpc.security import Security
from tfdrl.topology import Address

#: Of a run, below that of pytest, which would not say what it had printed.
LIMIT_SECS = 280.0


class Run:
    """One `tfdrl-train`; its roles are found by the root_dir in their command lines."""

    def __init__(self, gin_file, root_dir: pathlib.Path, *flags: str):
        self.root_dir = root_dir
        arguments = [f"--gin_file={gin_file}", f"--root_dir={root_dir}", *flags]
        self._log = root_dir.with_name(f"{root_dir.name}-launcher.log")
        # Roles that are started afresh, such as SEED's actors, find environments of the tests.
        environment = {**os.environ, "PYTHONPATH": python_path()}
        self.popen = preloaded.Process(
            "binaries.train", arguments, self._log, environment, CHECKOUT
        )

    @property
    def output(self) -> str:
        """What it has printed."""
        return self._log.read_text()

    def processes(self, *arguments: str) -> list[int]:
        """Process ids whose command lines have `arguments` and the root_dir."""
        found = []
        wanted = {f"--root_dir={self.root_dir}", *arguments}
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if wanted <= set(arguments_of(int(path.name))):
                    found.append(int(path.name))
        return found

    def statuses(self, limit_secs: float = LIMIT_SECS):
        """Yields the chief's status about twice a second, until the run has ended."""
        client, deadline_secs = None, time.monotonic() + limit_secs
        while self.popen.poll() is None:
            assert time.monotonic() < deadline_secs, f"not over in {limit_secs:g} s\n{self.output}"
            time.sleep(0.5)
            if client is None:
                client = self._client()
                continue
            with contextlib.suppress(TfdrlError):
                yield client.status(timeout_secs=2.0)

    def wait(self, limit_secs: float = LIMIT_SECS) -> int:
        """Its exit code; a run that takes longer fails the test."""
        for _ in self.statuses(limit_secs):
            pass
        return self.popen.returncode

    def _client(self):
        chiefs = [*self.processes("--role=coordinator"), *self.processes("--role=learner")]
        for pid in chiefs:
            arguments = arguments_of(pid)
            listen = next(a.partition("=")[2] for a in arguments if a.startswith("--listen="))
            found = [a.partition("=")[2] for a in arguments if a.startswith("--token_file=")]
            sender = {"experiment": "", "role": "test", "task": 0, "run_id": 1}
            protection = Security.from_files(token_file="".join(found))
            return TrainingClient(Address.parse(listen), **sender, security=protection)
        return None

    def kill(self) -> None:
        """SIGKILL to all of it."""
        self.popen.kill()
        self.popen.wait()
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


class Ended(NamedTuple):
    """A run that ended with exit code 0.

    Attributes:
      result: of result.json.
      output: what it printed.
      statuses: of its chief, oldest first.
      killed: the status when roles were killed; None if none were.
    """

    result: dict[str, Any]
    output: str
    statuses: list
    killed: Any

    @property
    def metrics(self) -> dict[str, float]:
        """The last that the chief told."""
        return self.statuses[-1].metrics

    def newest(self, role: str, metric: str) -> dict[tuple[int, int], float]:
        """The last value of a role's metric by (task, run id): a restart is another run."""
        return {
            (found.task, found.run_id): found.metrics[metric]
            for status in self.statuses
            for found in status.roles
            if found.role == role and metric in found.metrics
        }


def train(
    gin_file,
    root_dir: pathlib.Path,
    *bindings: str,
    flags=(),
    kills=(),
    ready=lambda status: status.learner_step > 20,
    steps_after: int = 20,
    look=lambda run, status: None,
    limit_secs: float = LIMIT_SECS,
) -> Ended:
    """Trains until the run ends, which it must with exit code 0 and no process left.

    Args:
      gin_file, root_dir, bindings, flags: of the command line.
      kills: (role, task) of those that get SIGKILL. They must be started again, and the learner
        must take more than `steps_after` steps since, before the run may be over.
      ready: `ready(status)`: when they are killed.
      look: `look(run, status)` is called with each status.
      limit_secs: of the whole run.
    """
    run = Run(gin_file, root_dir, *(f"--gin_bindings={text}" for text in bindings), *flags)
    killing, statuses = _Killing(run, kills, ready, steps_after), []
    try:
        for status in run.statuses(limit_secs):
            statuses.append(status)
            look(run, status)
            killing.look(status)
        output = run.output
        assert run.popen.returncode == 0, output
        assert not run.processes()
    finally:
        run.kill()
    assert killing.is_over, "the run ended before it had made up for what was killed"
    for role, task in kills:
        assert f"{role} {task} died (killed by SIGKILL); starting it again" in output
    result = json.loads((root_dir / "result.json").read_text())
    return Ended(result, output, statuses, killing.status)


class _Killing:
    """Kills roles of a run when it is time.

    The evaluator stands still until the roles are back and the learner has gone on: or a run
    that learns quickly would be solved, and over, before that can be seen.
    """

    def __init__(self, run: Run, kills, ready, steps_after: int):
        self._run, self._kills, self._ready, self._steps = run, kills, ready, steps_after
        self._evaluator = None
        self.status = None  # that at which they were killed
        self.is_over = not kills

    def look(self, status) -> None:
        """At each status."""
        if self.is_over:
            return
        if self._evaluator is None:
            (self._evaluator,) = self._run.processes("--role=evaluator")
            os.kill(self._evaluator, signal.SIGSTOP)
        if self.status is None and self._ready(status):
            self.status = status
            for role, task in self._kills:
                (pid,) = self._run.processes(f"--role={role}", f"--task={task}")
                os.kill(pid, signal.SIGKILL)
        elif self.status is not None and self._is_made_up_for(status):
            os.kill(self._evaluator, signal.SIGCONT)
            self.is_over = True

    def _is_made_up_for(self, status) -> bool:
        """Whoever reported before reports again, as another run; the learner has gone on."""
        before, after = self._reports(self.status), self._reports(status)
        are_back = all(after.get(key, run_id) != run_id for key, run_id in before.items())
        return are_back and status.learner_step > self.status.learner_step + self._steps

    def _reports(self, status) -> dict[tuple[str, int], int]:
        """The run ids of those to kill that have reported."""
        return {
            (role.role, role.task): role.run_id
            for role in status.roles
            if (role.role, role.task) in self._kills and role.metrics
        }


def have_reported(role: str, number: int, metric: str, learner_step: int = 20):
    """For `ready`: the learner is past a step, and so many of a role have reported a metric."""

    def ready(status) -> bool:
        tasks = {found.task for found in status.roles if found.role == role}
        has_metric = [found for found in status.roles if metric in found.metrics]
        return status.learner_step > learner_step and len(tasks) == len(has_metric) == number

    return ready


def check_solved(ended: Ended, mean: float = 0.95) -> None:
    """It is solved by its evaluation, and no count of its chief ever went back."""
    assert "solved: mean return" in ended.output
    assert ended.result["reason"].startswith("solved")
    assert ended.result["evaluation"]["mean"] >= mean
    for name in ("frames", "learner_step", "version"):
        counts = [getattr(status, name) for status in ended.statuses]
        assert counts == sorted(counts), name


def check_files(root_dir: pathlib.Path, *roles: str) -> None:
    """A solved run leaves summary, settings, curve and policy, and the events of these roles."""
    import tensorflow as tf

    assert "solved: mean return" in (root_dir / "summary.txt").read_text()
    assert (root_dir / "config.gin").exists()
    assert (root_dir / "checkpoints" / "operative_config.gin").exists()
    assert len((root_dir / "evaluations.csv").read_text().splitlines()) >= 2
    assert (root_dir / "learning_curve.png").exists()
    assert tf.saved_model.contains_saved_model(root_dir / "policy")
    for role in roles:
        assert list((root_dir / "tensorboard" / role).glob("events.*")), role
    check_report(root_dir)


def check_report(root_dir: pathlib.Path) -> None:
    """The page has the architecture's figure, and on it what every role has measured."""
    found = run.read(root_dir)
    numbers = measured.of(found)
    assert '<svg class="figure"' in (root_dir / page.FILE).read_text()
    assert found.result["frames"] == numbers.frames
    for role in found.program.roles:
        mine = numbers.roles[role.name]
        assert mine.cpu_cores > 0.0 and mine.memory_mb > 10.0, role.name
        assert set(mine.flows) == set(role.talks_to) - {role.name}
        for other, flow in mine.flows.items():
            assert flow.sent_mb > 0.0 and flow.received_mb > 0.0, (role.name, other)


def finish(gin_file, root_dir: pathlib.Path) -> dict[str, Any]:
    """Runs to the end in `root_dir`, unless a test before did that (`-m slow` leaves it out).

    Returns its result.
    """
    if not (root_dir / "result.json").exists():
        train(gin_file, root_dir)
    return json.loads((root_dir / "result.json").read_text())


def continue_run(gin_file, root_dir: pathlib.Path, *bindings: str) -> Ended:
    """Goes on with a run that was over, under other settings; its counts do, too."""
    before = json.loads((root_dir / "result.json").read_text())
    ended = train(gin_file, root_dir, *bindings, flags=["--allow_config_change"])
    for name in ("frames", "learner_steps"):
        assert ended.result[name] > before[name], name
    assert all(status.frames >= before["frames"] for status in ended.statuses)
    return ended
