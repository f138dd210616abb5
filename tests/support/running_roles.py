"""Roles as real processes: started, watched by the learner's status and their logs, killed."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import preloaded
import pytest
from paths import CHECKOUT, DATA, python_path

from tfdrl.errors import TfdrlError
from tfdrl.launch.local import addresses
from tfdrl.launch.process import LAUNCHER_VARIABLE, die_with_parent
from tfdrl.rpc.run_client import TrainingClient
from tfdrl.rpc.security import Security
from tfdrl.topology import Address

APEX = DATA / "apex_chain.gin"
IMPALA = DATA / "impala_chain.gin"
DQN = DATA / "dqn_catch.gin"


def free_port() -> int:
    """A port that nobody listens on, and that neither a launcher nor another test draws."""
    return next(addresses.free_ports())


def wait(condition, limit_secs: float, what):
    """Returns the first true value of `condition()`; fails with the text `what`, or `what()`."""
    deadline_secs = time.monotonic() + limit_secs
    while not (value := condition()):
        if time.monotonic() > deadline_secs:
            pytest.fail(f"not within {limit_secs:g} s: {what() if callable(what) else what}")
        time.sleep(0.1)
    return value


class Process:
    """One role's process, in a session of its own; `pid` is the role's, also in a namespace.

    With `tensorflow` it is forked from one that has imported that, or everything else, as the
    launcher does; without a word it is started afresh.
    """

    def __init__(
        self,
        command,
        log: pathlib.Path,
        environment,
        as_pid_1: bool,
        tensorflow: bool | None = None,
    ):
        self.log_path = log
        if tensorflow is not None and command[0] == sys.executable:
            self._popen = preloaded.Process(
                *(command[2], command[3:], log), environment, CHECKOUT, as_pid_1, tensorflow
            )
        else:
            outside = ["unshare", "--pid", "--fork", "--kill-child"] if as_pid_1 else []
            self._popen = self._afresh([*outside, *command], environment)
        self.pid = self._only_child() if as_pid_1 else self._popen.pid

    def _afresh(self, command, environment) -> subprocess.Popen:
        with self.log_path.open("ab") as file:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=CHECKOUT,
                start_new_session=True,
                preexec_fn=functools.partial(die_with_parent, signal.SIGKILL),
            )

    def _only_child(self) -> int:
        children = pathlib.Path(f"/proc/{self._popen.pid}/task/{self._popen.pid}/children")
        return int(wait(children.read_text, 5.0, "the process of a new namespace"))

    @property
    def returncode(self) -> int | None:
        return self._popen.poll()

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        """SIGKILL to all of the session; nothing if it ended already."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)
        self._popen.wait()

    def exit_code(self, limit_secs: float) -> int:
        """Its exit code, within a limit."""
        wait(lambda: self._popen.poll() is not None, limit_secs, lambda: f"its end\n{self.log}")
        return self._popen.returncode

    def terminate(self, limit_secs: float = 10.0) -> int:
        """SIGTERM; returns the exit code that follows within the limit."""
        self.signal(signal.SIGTERM)
        return self.exit_code(limit_secs)

    def cpu_secs(self) -> float:
        """CPU time of all its threads so far."""
        fields = pathlib.Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Roles:
    """The processes of one run, on ports of their own.

    Args:
      root_dir: of the run.
      logs: directory of the processes' logs, not under root_dir: its disk may be full.
      gin_file: of the run.
      flags: that every role gets, such as --gin_bindings.
      security: of the tests' own clients.
    """

    light = ()  # roles without TensorFlow
    afresh = ()  # roles that are not forked

    def __init__(
        self,
        root_dir: pathlib.Path,
        logs: pathlib.Path,
        gin_file: pathlib.Path,
        *flags: str,
        security: Security = Security(),  # noqa: B008  (immutable)
    ):
        self.root_dir, self._logs, self._gin_file = root_dir, logs, gin_file
        self._flags, self._security = flags, security
        self.addresses = {name: f"127.0.0.1:{free_port()}" for name in ("replay", "learner")}
        self.faults = logs / "faults"
        self._started = []

    def start(self, role: str, *flags: str, as_pid_1=False, log=None, env=(), on=(), **addresses):
        """Starts a role; `addresses` replace what it would be told, None leaves it out.

        `on` goes before its command, such as ("ip", "netns", "exec", "name").
        """
        told = {
            "replay": {"listen": self.addresses["replay"]},
            "learner": {"listen": self.addresses["learner"], "replay": self.addresses["replay"]},
            "evaluator": {"learner": self.addresses["learner"]},
        }.get(role, dict(self.addresses))
        arguments = {"root_dir": self.root_dir, "gin_file": self._gin_file, **told, **addresses}
        command = [*on, sys.executable, "-m", "tfdrl.launch.role", f"--role={role}"]
        command += [f"--{name}={value}" for name, value in arguments.items() if value is not None]
        command += [*self._flags, *flags]
        environment = {**os.environ, "TFDRL_TEST_FAULTS": str(self.faults), **dict(env)}
        environment["PYTHONPATH"] = python_path()
        environment["PYTHONFAULTHANDLER"] = "1"
        environment.pop(LAUNCHER_VARIABLE, None)
        path = self._logs / f"{log or f'{role}-{len(self._started)}'}.log"
        tensorflow = None if role in self.afresh else role not in self.light
        process = Process(command, path, environment, as_pid_1, tensorflow)
        self._started.append(process)
        return process

    def client(self, experiment: str = "") -> TrainingClient:
        """A client of the learner, as a role that the ledger does not know."""
        address = Address.parse(self.addresses["learner"])
        return TrainingClient(
            address,
            **{"experiment": experiment, "role": "test", "task": 0, "run_id": 1},
            security=self._security,
        )

    def status(self):
        """The learner's status; None while it does not answer."""
        client = self.client()
        try:
            return client.status(timeout_secs=2.0)
        except TfdrlError:
            return None
        finally:
            client.close()

    def wait_for(self, condition, limit_secs: float, what: str):
        """Waits until `condition(status)` holds and returns the status."""

        def holds():
            status = self.status()
            return status if status is not None and condition(status) else None

        return wait(holds, limit_secs, lambda: f"{what}; {self.status()}\n{self.last_lines()}")

    def wait_for_report(self, role: str, task: int, limit_secs: float):
        """Waits for the role's next report and returns the status with it."""
        begin_secs = time.monotonic()

        def is_new(found):
            age_secs = found.seconds_since_report
            return (found.role, found.task) == (role, task) and age_secs < (
                time.monotonic() - begin_secs
            )

        return self.wait_for(
            lambda status: any(is_new(found) for found in status.roles),
            *(limit_secs, f"a report of {role} {task}"),
        )

    def wait_for_progress(self, limit_secs: float, steps: int = 50, frames: int = 100):
        """Waits for so many more learner steps and frames; returns the status then."""
        start = self.wait_for(lambda status: True, limit_secs, "an answer of the learner")
        return self.wait_for(
            lambda now: (
                now.learner_step >= start.learner_step + steps
                and now.frames >= start.frames + frames
            ),
            limit_secs,
            f"{steps} steps and {frames} frames after {start.learner_step} and {start.frames}",
        )

    def table(self, name: str):
        """Reverb's TableInfo of the replay server; None while it does not answer."""
        import reverb

        client = reverb.Client(self.addresses["replay"])
        with contextlib.suppress(reverb.errors.DeadlineExceededError, RuntimeError):
            return client.server_info(timeout=2)[name]

    def learner_checkpoints(self) -> list[pathlib.Path]:
        """Prefixes of the learner's checkpoints, oldest first."""
        paths = (self.root_dir / "checkpoints").glob("checkpoint-*.index")
        return sorted((path.with_suffix("") for path in paths), key=lambda p: int(p.name[11:]))

    def last_lines(self) -> str:
        """The end of every log, and how the process ended."""
        parts = []
        for process in self._started:
            parts.append(f"--- {process.log_path.name} ({process.returncode})")
            parts += process.log.splitlines()[-20:]
        return "\n".join(parts)

    def kill(self) -> None:
        for process in self._started:
            process.kill()


class WatchedRoles(Roles):
    """Also keeps every status that the learner ever gave: `statuses`, oldest first."""

    def __init__(self, *arguments, **more):
        super().__init__(*arguments, **more)
        self.statuses = []
        self._stop = threading.Event()
        self._watching = threading.Thread(target=self._watch, daemon=True)
        self._watching.start()

    def kill(self) -> None:
        self._stop.set()
        self._watching.join()
        super().kill()

    def _watch(self) -> None:
        while not self._stop.wait(0.25):
            if (status := self.status()) is not None:
                self.statuses.append(status)


class SeedRoles(Roles):
    """Those of SEED RL, whose learner knows which actors are here."""

    light = ("actor",)

    def wait_for_actors(self, number: int, limit_secs: float = 150.0):
        """Waits until so many play; roles start slowly on a machine that has much else to do."""
        return self.wait_for(
            lambda now: now.metrics.get("inference/actors") == number,
            *(limit_secs, f"{number} actors"),
        )


def actor_runs(status) -> dict[int, int]:
    """The run of each actor, by its task."""
    return {role.task: role.run_id for role in status.roles if role.role == "actor"}


def checkpoint_contents(checkpoint: pathlib.Path) -> dict:
    """Arrays by name of a learner's checkpoint, without its clocks and counters."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(checkpoint))
    return {
        name: reader.get_tensor(name)
        for name in reader.get_variable_to_shape_map()
        if "OBJECT_GRAPH" not in name and "counters" not in name
    }


def can_make_pid_namespaces() -> bool:
    """Whether a process may be started as PID 1 of a namespace of its own."""
    command = ["unshare", "--pid", "--fork", "--kill-child", "true"]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True).returncode == 0
    return False


@contextlib.contextmanager
def small_disk(directory: pathlib.Path, size_megabytes: int):
    """Mounts a file system of that size on `directory`; yields whether that was permitted."""
    directory.mkdir(parents=True, exist_ok=True)
    options = ["-t", "tmpfs", "-o", f"size={size_megabytes}m", "tmpfs", str(directory)]
    done = subprocess.run(["mount", *options], capture_output=True)
    try:
        yield done.returncode == 0
    finally:
        if done.returncode == 0:
            subprocess.run(["umount", "--lazy", str(directory)], check=False)
