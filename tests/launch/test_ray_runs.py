"""Runs on a real Ray cluster of three nodes, on this machine."""

import re
import subprocess
import sys

import pytest
import ray_cluster
from cluster_runs import (
    CARTPOLE,
    LIMIT_SECS,
    ProcessRun,
    check_move_of_actor,
    check_start_elsewhere,
    tiny_flags,
)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(ray_cluster.missing()), reason=ray_cluster.missing() or "there"),
]


@pytest.fixture(scope="module")
def ray():
    with ray_cluster.cluster() as found:
        yield found


def _node_of(run: ProcessRun, role: str) -> str:
    return re.findall(rf"^  node (\S+): .*\b{role}\b", run.output, re.MULTILINE)[-1]


@pytest.fixture
def start(ray, tmp_path):
    """Starts a run."""
    started = []

    def start_run(*flags, directory=tmp_path):
        started.append(ProcessRun("ray", directory, *flags, environment=ray.environment))
        return started[-1]

    yield start_run
    for run in started:
        run.kill()


@pytest.fixture
def tiny(start, tmp_path):
    """Starts a run whose roles only behave."""

    def start_tiny(*flags, directory=tmp_path, **behaviour):
        return start(*tiny_flags(directory, **behaviour), *flags, directory=directory)

    return start_tiny


def test_roles_run_on_their_nodes_and_all_stop_in_order(tiny):
    run = tiny()
    run.wait_until_up()
    assert _node_of(run, "learner") == _node_of(run, "replay")
    assert _node_of(run, "learner") != _node_of(run, "actor")
    credentials = run.root_dir / "credentials"
    assert credentials.stat().st_mode & 0o777 == 0o700
    run.wait_for(lambda: "learner steps 5" in run.output)
    assert run.interrupt() == 0
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
    run.wait_until_up()
    run.wait_for(run.processes)
    run.kill()
    run.wait_for(lambda: not run.processes(), 90.0)


def test_two_runs_share_a_cluster_and_a_third_does_not_fit(tiny, tmp_path):
    runs = [tiny(directory=tmp_path / name) for name in ("a", "b")]
    for run in runs:
        run.wait_until_up()
    third = tiny("--resources=actor=cpu:5", directory=tmp_path / "c")
    assert third.end() == 2
    assert "in all 12 cores; the allocation has 8" in third.output
    assert [run.interrupt() for run in runs] == [0, 0]


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
    run.wait_until_up()
    try:
        check_move_of_actor(run, _node_of(run, "actor"), ray.fail)
    finally:
        ray.add()


def test_all_start_elsewhere_when_the_learner_s_node_is_lost(tiny, ray):
    run = tiny()
    run.wait_until_up()
    before = _node_of(run, "learner")
    try:
        check_start_elsewhere(run, before, ray.fail)
        assert _node_of(run, "learner") != before
    finally:
        ray.add()


@pytest.mark.skipif(not ray_cluster.can_mount(), reason="only root can mount")
def test_a_node_that_does_not_share_the_storage_is_refused(tiny, ray, tmp_path):
    with ray.node_without(tmp_path):
        run = tiny("--resources=actor=apart:1", actors=4)
        assert run.end() == 2
    assert f"does not see what is written to --root_dir={run.root_dir} here" in run.output
    assert not list((run.root_dir / "logs").glob("*.log"))


def test_another_version_of_ray_is_said(ray):
    code = "import ray; ray.__version__ = '2.0.0'; from tfdrl.launch.ray import cluster as c;"
    done = subprocess.run(
        [sys.executable, "-c", f"{code} c.Cluster()"],
        env=ray.environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert re.search(r"install the same on all nodes \(.*Ray: 2.0.0", done.stderr), done.stderr


@pytest.mark.parametrize("gin_file", CARTPOLE)
def test_cartpole_is_solved_on_three_nodes(start, gin_file):
    run = start(f"--gin_file={gin_file}.gin")
    assert run.end(LIMIT_SECS) == 0, run.output
    assert "solved: mean return" in run.output


def test_a_learner_of_a_lost_node_comes_back_from_its_checkpoint(start, ray):
    settings = ["experiment.solved_return = None", "impala.learner_checkpoint_period_secs = 3.0"]
    gin = ["--gin_file=impala/cartpole.gin", *(f"--gin_bindings={text}" for text in settings)]
    run = start(*gin)
    run.wait_for(lambda: _checkpoint(run) > 0, 120.0)
    before, node = _checkpoint(run), _node_of(run, "learner")
    ray.fail(node)
    try:
        run.wait_for(lambda: "all roles start again" in run.output, 90.0)
        since = len(run.output)
        run.wait_for(lambda: any(run.learner_steps(since)), 120.0)
        assert min(steps for steps in run.learner_steps(since) if steps) >= before
        assert _node_of(run, "learner") != node
        assert run.interrupt() == 0
    finally:
        ray.add()


def _checkpoint(run: ProcessRun) -> int:
    """The learner step of the newest."""
    found = (run.root_dir / "checkpoints").glob("checkpoint-*.index")
    return max((int(path.stem.rpartition("-")[2]) for path in found), default=0)
