"""Runs on a real Ray cluster of three nodes, on this machine."""

import pathlib
import re
import signal
import subprocess
import sys

import pytest
import ray_cluster
from paths import CHECKOUT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(ray_cluster.missing()), reason=ray_cluster.missing() or "there"),
]
_TINY = """
import tiny_program
experiment.architecture = @tiny()
tiny.learner = 'serve'
tiny.learner_serves = True
"""
_EVERYBODY = ("replay-0", "learner-0", "actor-0", "actor-1")


@pytest.fixture(scope="module")
def ray():
    with ray_cluster.cluster() as found:
        yield found


class _Run:
    """A `tfdrl-train --launcher=ray`."""

    def __init__(self, ray, directory: pathlib.Path, *flags: str):
        self.root_dir, self._out = directory / "run", directory / "out"
        command = [sys.executable, "-m", "binaries.train", "--launcher=ray"]
        with self._out.open("w") as out:
            self.process = subprocess.Popen(
                [*command, f"--root_dir={self.root_dir}", *flags],
                env=ray.environment,
                cwd=CHECKOUT,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self._out.read_text()

    def wait_for(self, condition, limit_secs=60.0):
        ray_cluster.until(condition, lambda: self.output, limit_secs)

    def end(self, limit_secs=60.0) -> int:
        return self.process.wait(limit_secs)

    def is_up(self, *roles: str) -> bool:
        return all((self.root_dir / f"ready-{role}").exists() for role in roles)

    def stopped(self) -> list[str]:
        path = self.root_dir / "stopped"
        return path.read_text().split() if path.exists() else []

    def node_of(self, role: str) -> str:
        found = re.findall(rf"^  node (\S+): .*\b{role}\b", self.output, re.MULTILINE)
        return found[-1]


@pytest.fixture
def tiny(ray, tmp_path):
    """Starts a run whose roles only behave."""
    started = []

    def start(*flags, directory=tmp_path, **behaviour):
        directory.mkdir(exist_ok=True)
        (directory / "tiny.gin").write_text(_TINY)
        gin = [f"--gin_bindings=tiny.{name} = {value!r}" for name, value in behaviour.items()]
        started.append(_Run(ray, directory, f"--gin_file={directory}/tiny.gin", *gin, *flags))
        return started[-1]

    yield start
    for run in started:
        if run.process.poll() is None:
            run.process.kill()
            run.process.wait()


def test_roles_run_on_their_nodes_and_all_stop_in_order(tiny):
    run = tiny()
    run.wait_for(lambda: run.is_up(*_EVERYBODY))
    assert run.node_of("learner") == run.node_of("replay")
    assert run.node_of("learner") != run.node_of("actor")
    credentials = run.root_dir / "credentials"
    assert credentials.stat().st_mode & 0o777 == 0o700
    run.wait_for(lambda: "learner steps 5" in run.output)
    run.process.send_signal(signal.SIGINT)
    assert run.end() == 0
    assert set(run.stopped()) == {"replay-0", "actor-0", "actor-1"}
    assert run.stopped()[-1] == "replay-0"
    assert "ended               told to stop (exit code 0)" in run.output
    assert not credentials.exists()


@pytest.mark.parametrize(
    "behaviour, code, words",
    [
        ({"learner": "finish"}, 0, "learner finished"),
        ({"actor": "misconfigured"}, 2, "tiny.actor is wrong"),
        ({"learner": "kill_self"}, 1, "learner died (killed by SIGKILL)"),
    ],
)
def test_exit_codes_are_those_of_one_machine(tiny, behaviour, code, words):
    run = tiny(**behaviour)
    assert run.end() == code, run.output
    assert words in run.output


def test_nothing_is_left_of_a_launcher_that_is_killed(tiny):
    run = tiny(actor="breed")
    run.wait_for(lambda: run.is_up("replay-0", "learner-0"))
    run.process.kill()
    run.wait_for(lambda: not _commands_of(run), 90.0)


def _commands_of(run: _Run) -> list[bytes]:
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes())
        except OSError:
            continue
    return [words for words in found if str(run.root_dir).encode() in words]


def test_two_runs_share_a_cluster_and_a_third_does_not_fit(tiny, tmp_path):
    runs = [tiny(directory=tmp_path / name) for name in ("a", "b")]
    for run in runs:
        run.wait_for(lambda run=run: run.is_up(*_EVERYBODY))
    third = tiny("--resources=actor=cpu:5", directory=tmp_path / "c")
    assert third.end() == 2
    assert "in all 12 cores; the allocation has 8" in third.output
    for run in runs:
        run.process.send_signal(signal.SIGINT)
    assert [run.end() for run in runs] == [0, 0]


@pytest.mark.parametrize(
    "flag, words",
    [
        ("--gin_bindings=tiny.actors = 40", "40 actors want 40 cores, in all 42 cores"),
        ("--resources=actor=gpu:1", "actor sees no GPUs"),
        ("--ray_address=127.0.0.1:9", "there is no Ray cluster at 127.0.0.1:9"),
        ("--gin_bindings=import there_is_no_such_package", "there_is_no_such_package"),
    ],
)
def test_what_cannot_be_is_said_before_anything_starts(tiny, flag, words):
    run = tiny(flag)
    assert run.end(40.0) == 2
    assert words in run.output
    assert not list((run.root_dir / "logs").glob("*.log"))


def test_an_actor_of_a_lost_node_starts_elsewhere(tiny, ray):
    run = tiny()
    run.wait_for(lambda: run.is_up(*_EVERYBODY))
    node = run.node_of("actor")
    (run.root_dir / "ready-actor-1").unlink()
    ray.fail(node)
    try:
        run.wait_for(lambda: run.is_up("actor-1"))
        assert f"actor 1 moves from {node}, which is down, to" in run.output
    finally:
        ray.add()
    assert "all roles start again" not in run.output


def test_all_start_elsewhere_when_the_learner_s_node_is_lost(tiny, ray):
    run = tiny()
    run.wait_for(lambda: run.is_up(*_EVERYBODY))
    before = run.node_of("learner")
    for role in _EVERYBODY:
        (run.root_dir / f"ready-{role}").unlink()
    ray.fail(before)
    try:
        run.wait_for(lambda: run.is_up(*_EVERYBODY))
        assert f"learner has lost its node {before}: all roles start again" in run.output
        assert run.node_of("learner") != before
        run.process.send_signal(signal.SIGINT)
        assert run.end() == 0
    finally:
        ray.add()


def test_impala_solves_cartpole_on_three_nodes(ray, tmp_path):
    run = _Run(ray, tmp_path, "--gin_file=impala/cartpole.gin")
    try:
        assert run.end(280.0) == 0, run.output
    finally:
        run.process.kill()
    assert "solved: mean return" in run.output
