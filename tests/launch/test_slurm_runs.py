"""Runs as jobs of a real Slurm cluster of three nodes, on this machine."""

import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import sys
import time

import pytest
import slurm_cluster
from paths import CHECKOUT

from tfdrl.launch import printed_commands
from tfdrl.launch.slurm import steps
from tfdrl.launch.slurm.job import Job
from tfdrl.topology import Resources

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing() or "there"),
]
_TINY = """
import tiny_program
experiment.architecture = @tiny()
tiny.learner = 'serve'
tiny.learner_serves = True
"""
_WHOLE_NODES = ("--nodes=3", "--ntasks-per-node=1", "--cpus-per-task=4", "--mem=8000")


@pytest.fixture(scope="module")
def slurm():
    with slurm_cluster.cluster() as found:
        yield found


class _Run:
    """A `tfdrl-train --launcher=slurm` as a job."""

    def __init__(self, slurm, directory: pathlib.Path, *flags: str, job=_WHOLE_NODES):
        self.slurm, self.root_dir = slurm, directory / "run"
        command = [sys.executable, "-m", "binaries.train", "--launcher=slurm"]
        command += [f"--root_dir={self.root_dir}", *flags]
        script = directory / "job.sh"
        script.write_text(f"#!/bin/sh\ncd {CHECKOUT}\nexec {shlex.join(command)}\n")
        self._out = pathlib.Path(f"{script}.out")
        self.job = slurm.submit(script, *job)

    @property
    def output(self) -> str:
        return self._out.read_text() if self._out.exists() else ""

    def wait_for(self, condition, limit_secs=60.0):
        deadline_secs = time.monotonic() + limit_secs
        while not condition():
            state = self.slurm.state(self.job)
            assert time.monotonic() < deadline_secs, f"{state}\n{self.output}"
            time.sleep(0.2)

    def is_up(self, *roles: str) -> bool:
        return all((self.root_dir / f"ready-{role}").exists() for role in roles)

    def stopped(self) -> list[str]:
        path = self.root_dir / "stopped"
        return path.read_text().split() if path.exists() else []


@pytest.fixture
def tiny(slurm, tmp_path):
    """Starts a run whose roles only behave."""
    started = []

    def start(*flags, job=_WHOLE_NODES, directory=tmp_path, **behaviour):
        directory.mkdir(exist_ok=True)
        (directory / "tiny.gin").write_text(_TINY)
        gin = [f"--gin_bindings=tiny.{name} = {value!r}" for name, value in behaviour.items()]
        gin.append(f"--gin_file={directory}/tiny.gin")
        started.append(_Run(slurm, directory, *gin, *flags, job=job))
        return started[-1]

    yield start
    for run in started:
        slurm.end(run.job)


_EVERYBODY = ("replay-0", "learner-0", "actor-0", "actor-1")


def test_roles_are_steps_on_their_nodes_and_all_stop_with_the_job(tiny, slurm):
    run = tiny()
    run.wait_for(lambda: run.is_up(*_EVERYBODY))
    nodes = {name.rpartition("-")[0]: node for name, (_, node) in slurm.steps(run.job).items()}
    assert nodes["learner"] == nodes["replay"]
    assert len({nodes[name] for name in ("learner", "actor-0", "actor-1")}) == 3
    run.wait_for(lambda: "learner steps 5" in run.output)
    slurm.call("scancel", run.job)
    assert slurm.wait(run.job, 40.0).startswith("CANCELLED")
    assert set(run.stopped()) == {"replay-0", "actor-0", "actor-1"}
    assert "ended               told to stop (exit code 0)" in run.output
    assert not (run.root_dir / "credentials").exists()


def test_services_beyond_a_machine_are_encrypted_unless_it_is_said(tiny, slurm):
    if slurm_cluster.own_address() == "127.0.0.1":
        pytest.skip("this machine has the loopback interface only")
    run = tiny()
    run.wait_for(lambda: "learner steps 5" in run.output)
    credentials = run.root_dir / "credentials"
    assert credentials.stat().st_mode & 0o777 == 0o700
    assert sorted(os.listdir(credentials)) == ["ca.crt", "tls.crt", "tls.key", "token"]
    slurm.call("scancel", run.job)
    slurm.wait(run.job, 40.0)
    again = tiny("--insecure_network")
    again.wait_for(lambda: again.output.count("learner steps 5") >= 1)
    assert not credentials.exists()
    slurm.call("scancel", again.job)
    slurm.wait(again.job, 40.0)


def test_an_actor_whose_step_is_cancelled_is_started_again(tiny, slurm):
    run = tiny()
    run.wait_for(lambda: run.is_up(*_EVERYBODY))
    (step,) = [s for name, (s, _) in slurm.steps(run.job).items() if name.startswith("actor-0")]
    (run.root_dir / "ready-actor-0").unlink()
    slurm.call("scancel", step)
    run.wait_for(lambda: run.is_up("actor-0"))
    assert "actor 0 died (killed by SIGKILL); starting it again in 1 s" in run.output


@pytest.mark.parametrize(
    "behaviour, code, words",
    [
        ({"learner": "finish"}, 0, "learner finished"),
        ({"learner": "diverge"}, 3, "the loss was not finite"),
        ({"actor": "misconfigured"}, 2, "tiny.actor is wrong"),
        ({"learner": "die"}, 7, "learner died (exit code 7)"),
        ({"learner": "kill_self"}, 1, "learner died (killed by SIGKILL)"),
    ],
)
def test_exit_codes_are_those_of_one_machine(tiny, slurm, behaviour, code, words):
    run = tiny(**behaviour)
    state = slurm.wait(run.job, 60.0)
    assert state == ("COMPLETED 0:0" if code == 0 else f"FAILED {code}:0"), run.output
    assert words in run.output


def test_what_a_role_leaves_behind_goes_with_it(tiny, slurm):
    run = tiny(actor="breed", learner="finish")
    slurm.wait(run.job, 60.0)
    sleeping = [p for p in pathlib.Path("/proc").glob("[0-9]*/cmdline") if _is_of(p, run)]
    assert not sleeping


def _is_of(path: pathlib.Path, run: _Run) -> bool:
    try:
        words = path.read_bytes().split(b"\0")
    except OSError:
        return False
    return str(run.root_dir).encode() in words


def test_a_time_limit_stops_in_order_and_the_job_goes_on_by_itself(tiny, slurm):
    run = tiny("--requeue", job=(*_WHOLE_NODES, "--requeue", "--open-mode=append"))
    run.wait_for(lambda: run.is_up(*_EVERYBODY))
    slurm.call("scancel", "--batch", "--signal=USR1", run.job)
    run.wait_for(lambda: f"job {run.job} is queued again" in run.output, 40.0)
    assert run.stopped()[-1] == "replay-0" and len(run.stopped()) == 3
    for role in _EVERYBODY:
        (run.root_dir / f"ready-{role}").unlink()
    run.wait_for(lambda: run.is_up(*_EVERYBODY), 60.0)
    slurm.call("scancel", run.job)


@pytest.mark.parametrize("partition", ["all", "patient"])
def test_a_run_that_is_preempted_stops_and_goes_on(tiny, slurm, tmp_path, partition):
    job = (*_WHOLE_NODES, "--requeue", "--open-mode=append", f"--partition={partition}")
    run = tiny("--requeue", job=job)
    run.wait_for(lambda: run.is_up(*_EVERYBODY))
    script = tmp_path / "urgent.sh"
    script.write_text("#!/bin/sh\nsleep 1\n")
    urgent = slurm.submit(script, "--partition=urgent", *_WHOLE_NODES)
    assert slurm.wait(urgent, 60.0) == "COMPLETED 0:0"
    run.wait_for(lambda: "told to stop (exit code 0)" in run.output)
    assert len(run.stopped()) == 3
    for role in _EVERYBODY:
        (run.root_dir / f"ready-{role}").unlink()
    run.wait_for(lambda: run.is_up(*_EVERYBODY), 60.0)


def test_an_actor_of_a_node_that_goes_down_starts_elsewhere(tiny, slurm):
    run = tiny(job=(*_WHOLE_NODES, "--no-kill"))
    run.wait_for(lambda: run.is_up(*_EVERYBODY))
    ((_, node),) = [s for name, s in slurm.steps(run.job).items() if name.startswith("actor-1")]
    (run.root_dir / "ready-actor-1").unlink()
    slurm.fail(node)
    try:
        run.wait_for(lambda: run.is_up("actor-1"), 60.0)
        assert f"actor 1 moves from {node}, which is down, to n" in run.output
    finally:
        slurm.end(run.job)
        slurm.repair(node)


def test_all_start_elsewhere_when_the_node_of_the_learner_goes_down(slurm, tmp_path):
    held = ("--no-shell", "--no-kill", "--job-name=held")  # or the first node is the launcher's
    slurm.call("salloc", *held, *_WHOLE_NODES)
    job = slurm.call("squeue", "--noheader", "--name=held", "--format=%i").strip()
    (tmp_path / "tiny.gin").write_text(_TINY)
    command = [sys.executable, "-m", "binaries.train", "--launcher=slurm"]
    command += [f"--gin_file={tmp_path}/tiny.gin", f"--root_dir={tmp_path}/run"]
    ready = [tmp_path / "run" / f"ready-{role}" for role in _EVERYBODY]
    output = tmp_path / "out"

    def all_are_up():
        assert process.poll() is None, output.read_text()
        return all(path.exists() for path in ready)

    with output.open("w") as out:
        process = subprocess.Popen(
            command,
            env={**slurm.environment, "SLURM_JOB_ID": job},
            cwd=CHECKOUT,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until(all_are_up)
        ((_, node),) = [s for name, s in slurm.steps(job).items() if name.startswith("learner")]
        for path in ready:
            path.unlink()
        slurm.fail(node)
        _wait_until(all_are_up)
        assert f"learner has lost its node {node}: all roles start again" in output.read_text()
        process.send_signal(signal.SIGINT)
        assert process.wait(60.0) == 0
    finally:
        process.kill()
        slurm.end(job)
        slurm.repair(node)


def _wait_until(condition, limit_secs=90.0):
    deadline_secs = time.monotonic() + limit_secs
    while not condition():
        assert time.monotonic() < deadline_secs
        time.sleep(0.2)


@pytest.mark.parametrize(
    "flag, words",
    [
        (
            "--gin_bindings=tiny.actors = 40",
            "40 actors want 40 cores, in all 42 cores; the allocation has 12 (n1: 4",
        ),
        (
            "--resources=learner=memory:100G",
            "1 learner wants 102400 MB, in all 102400 MB; the allocation has 24000",
        ),
    ],
)
def test_what_does_not_fit_is_said_before_anything_starts(tiny, slurm, flag, words):
    run = tiny(flag)
    assert slurm.wait(run.job, 60.0) == "FAILED 2:0"
    assert words in run.output


def test_the_file_that_is_written_runs_as_it_is(slurm, tmp_path):
    (tmp_path / "tiny.gin").write_text(_TINY.replace("'serve'", "'finish'"))
    command = [sys.executable, "-m", "binaries.manifests", "--format=slurm", "--nodes=3"]
    command += [f"--gin_file={tmp_path}/tiny.gin", f"--root_dir={tmp_path}/run", "--time=5"]
    script = tmp_path / "job.sh"
    text = slurm.call(*command, "--resources=actor=apart:1")
    # What is installed may be another checkout.
    here = f"{sys.executable} -m binaries.train"
    script.write_text(text.replace(printed_commands.installed("tfdrl-train"), here))
    job = slurm.submit(script)
    output = pathlib.Path(f"{script}.out")
    assert slurm.wait(job, 60.0) == "COMPLETED 0:0", output.read_text()
    assert "learner finished" in output.read_text()
    assert "--launcher=slurm --resources=actor=apart:1 --requeue" in output.read_text()


def test_a_gpu_of_the_job_is_seen_by_who_has_it_alone(monkeypatch):
    with slurm_cluster.cluster(nodes=2, has_gpus=True) as cluster:
        job = _held(cluster, "--nodes=2", "--cpus-per-task=4", "--mem=1000", "--gres=gpu:1")
        monkeypatch.setenv("SLURM_CONF", cluster.environment["SLURM_CONF"])
        assert [(n.cpus, n.gpus) for n in Job(job).nodes()] == [(4, 1), (4, 1)]

        def sees(wants, **rivals):
            command = steps.srun_command("learner-0", "n2", wants, **rivals)
            python = [sys.executable, "-c", _GPUS]
            return cluster.call(*command, f"--jobid={job}", *python).strip()

        assert sees(Resources(cpus=2, gpus=1)) == "0"
        assert sees(Resources(cpus=2, gpus=1), has_rivals=False) == "0"
        assert sees(Resources(cpus=1)) in ("", "NoDevFiles")
        cluster.end(job)


_GPUS = "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES', ''))"


def _held(cluster, *flags: str) -> str:
    """The number of a job that holds its nodes, and runs nothing by itself."""
    cluster.call("salloc", "--no-shell", "--job-name=held", "--ntasks-per-node=1", *flags)
    return cluster.call("squeue", "--noheader", "--name=held", "--format=%i").strip()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core binds everybody alike")
def test_where_the_cluster_binds_a_role_may_still_use_all_cores_of_the_job():
    with slurm_cluster.cluster(nodes=1, cpus=2, binding="affinity") as cluster:
        job = _held(cluster, "--nodes=1", "--cpus-per-task=2", "--mem=1000")

        def cores(flags):
            command = [*flags, f"--jobid={job}", sys.executable, "-c", _CORES]
            return int(cluster.call(*command))

        role = steps.srun_command("learner-0", "n1", Resources(cpus=1))
        bound = [flag for flag in role if flag != "--overlap"] + ["--exact", "--cpus-per-task=1"]
        assert (cores(role), cores(bound)) == (2, 1)
        cluster.end(job)


_CORES = "import os; print(len(os.sched_getaffinity(0)))"


def test_a_run_is_watched_from_elsewhere(tiny, slurm):
    run = tiny()
    run.wait_for(lambda: "learner steps 5" in run.output)
    command = [sys.executable, "-m", "binaries.watch", str(run.root_dir), "--once", "--json"]
    status = json.loads(slurm.call(*command))
    assert status["learner_step"] == 5 and status["metrics"] == {"learner/waiting_share": 1.0}


@pytest.mark.parametrize(
    "gin_file", ["impala/cartpole", "apex/cartpole", "seed/cartpole_vtrace", "a3c/cartpole"]
)
def test_cartpole_is_solved_on_three_nodes(slurm, tmp_path, gin_file):
    run = _Run(slurm, tmp_path, f"--gin_file={gin_file}.gin")
    try:
        assert slurm.wait(run.job, 280.0) == "COMPLETED 0:0", run.output
    finally:
        slurm.end(run.job)
    assert "solved: mean return" in run.output
    assert "1 replay at" not in run.output or slurm_cluster.own_address() in run.output


def test_a_run_that_is_cancelled_is_continued(slurm, tmp_path):
    flags = ["--gin_file=impala/cartpole.gin", "--gin_bindings=experiment.solved_return = None"]
    run = _Run(slurm, tmp_path, *flags)
    run.wait_for(lambda: " | frames " in run.output and _steps(run) > 20, 120.0)
    slurm.call("scancel", run.job)
    assert slurm.wait(run.job, 60.0).startswith("CANCELLED")
    assert "told to stop (exit code 0)" in run.output
    before = int(run.output.rpartition("learner steps")[2].split()[0].replace(",", ""))
    again = _Run(slurm, tmp_path, *flags)
    try:
        again.wait_for(lambda: _steps(again) > before, 120.0)
        assert all(steps >= before for steps in _all_steps(again))
    finally:
        slurm.end(again.job)


def _all_steps(run: _Run) -> list[int]:
    found = re.findall(r"learner steps ([\d,]+) ", run.output)
    return [int(text.replace(",", "")) for text in found]


def _steps(run: _Run) -> int:
    return max(_all_steps(run), default=0)
