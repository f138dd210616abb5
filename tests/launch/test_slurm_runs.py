"""Runs as jobs of a real Slurm cluster of three nodes, on this machine."""

import json
import os
import pathlib
import shlex
import sys

import pytest
import slurm_cluster
from cluster_runs import (
    CARTPOLE,
    LIMIT_SECS,
    ProcessRun,
    Run,
    check_move_of_actor,
    check_start_elsewhere,
    tiny_flags,
    tiny_gin,
)
from paths import CHECKOUT

from tfdrl.launch import printed_commands

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(slurm_cluster.missing()), reason=slurm_cluster.missing() or "there"),
]
_WHOLE_NODES = ("--nodes=3", "--ntasks-per-node=1", "--cpus-per-task=4", "--mem=8000")


@pytest.fixture(scope="module")
def slurm():
    with slurm_cluster.cluster() as found:
        yield found


class _Job(Run):
    """A run that is a job."""

    def __init__(self, slurm, directory: pathlib.Path, *flags: str, job=_WHOLE_NODES):
        super().__init__("slurm", directory, *flags)
        self._slurm = slurm
        script = directory / "job.sh"
        script.write_text(f"#!/bin/sh\ncd {CHECKOUT}\nexec {shlex.join(self.command)}\n")
        self.out = pathlib.Path(f"{script}.out")
        self.job = slurm.submit(script, *job)

    def state(self) -> str:
        return self._slurm.state(self.job)


@pytest.fixture
def tiny(slurm, tmp_path):
    """Starts a run whose roles only behave."""
    started = []

    def start(*flags, job=_WHOLE_NODES, **behaviour):
        own = tiny_flags(tmp_path, **behaviour)
        started.append(_Job(slurm, tmp_path, *own, *flags, job=job))
        return started[-1]

    yield start
    for run in started:
        slurm.end(run.job)


def test_roles_are_steps_on_their_nodes_and_all_stop_with_the_job(tiny, slurm):
    run = tiny()
    run.wait_until_up()
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
    run.wait_until_up()
    (step,) = [s for name, (s, _) in slurm.steps(run.job).items() if name.startswith("actor-0")]
    run.forget("actor-0")
    slurm.call("scancel", step)
    run.wait_until_up("actor-0")
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
    assert not run.processes()


def test_a_time_limit_stops_in_order_and_the_job_goes_on_by_itself(tiny, slurm):
    run = tiny("--requeue", job=(*_WHOLE_NODES, "--requeue", "--open-mode=append"))
    run.wait_until_up()
    slurm.call("scancel", "--batch", "--signal=USR1", run.job)
    run.wait_for(lambda: f"job {run.job} is queued again" in run.output, 40.0)
    assert run.stopped()[-1] == "replay-0" and len(run.stopped()) == 3
    run.forget()
    run.wait_until_up()
    slurm.call("scancel", run.job)


@pytest.mark.parametrize("partition", ["all", "patient"])
def test_a_run_that_is_preempted_stops_and_goes_on(tiny, slurm, tmp_path, partition):
    job = (*_WHOLE_NODES, "--requeue", "--open-mode=append", f"--partition={partition}")
    run = tiny("--requeue", job=job)
    run.wait_until_up()
    script = tmp_path / "urgent.sh"
    script.write_text("#!/bin/sh\nsleep 1\n")
    urgent = slurm.submit(script, "--partition=urgent", *_WHOLE_NODES)
    assert slurm.wait(urgent, 60.0) == "COMPLETED 0:0"
    run.wait_for(lambda: "told to stop (exit code 0)" in run.output)
    assert len(run.stopped()) == 3
    run.forget()
    run.wait_until_up()


def test_an_actor_of_a_node_that_goes_down_starts_elsewhere(tiny, slurm):
    run = tiny(job=(*_WHOLE_NODES, "--no-kill"))
    run.wait_until_up()
    node = _node_of(slurm, run.job, "actor-1")
    try:
        check_move_of_actor(run, node, slurm.fail)
    finally:
        slurm.end(run.job)
        slurm.repair(node)


def test_all_start_elsewhere_when_the_node_of_the_learner_goes_down(slurm, tmp_path):
    held = ("--no-shell", "--no-kill", "--job-name=held")  # or the first node is the launcher's
    slurm.call("salloc", *held, *_WHOLE_NODES)
    job = slurm.call("squeue", "--noheader", "--name=held", "--format=%i").strip()
    environment = {**slurm.environment, "SLURM_JOB_ID": job}
    run = ProcessRun("slurm", tmp_path, *tiny_flags(tmp_path), environment=environment)
    try:
        run.wait_until_up()
        node = _node_of(slurm, job, "learner")
        check_start_elsewhere(run, node, slurm.fail)
    finally:
        run.kill()
        slurm.end(job)
        slurm.repair(node)


def _node_of(slurm, job: str, role: str) -> str:
    (found,) = [node for name, (_, node) in slurm.steps(job).items() if name.startswith(role)]
    return found


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
    gin = tiny_gin(tmp_path)
    gin.write_text(gin.read_text().replace("'serve'", "'finish'"))
    command = [sys.executable, "-m", "binaries.manifests", "--format=slurm", "--nodes=3"]
    command += [f"--gin_file={gin}", f"--root_dir={tmp_path}/run", "--time=5"]
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


def test_a_run_is_watched_from_elsewhere(tiny, slurm):
    run = tiny()
    run.wait_for(lambda: "learner steps 5" in run.output)
    command = [sys.executable, "-m", "binaries.watch", str(run.root_dir), "--once", "--json"]
    status = json.loads(slurm.call(*command))
    assert status["learner_step"] == 5 and status["metrics"] == {"learner/waiting_share": 1.0}


@pytest.mark.parametrize("gin_file", CARTPOLE)
def test_cartpole_is_solved_on_three_nodes(slurm, tmp_path, gin_file):
    run = _Job(slurm, tmp_path, f"--gin_file={gin_file}.gin")
    try:
        assert slurm.wait(run.job, LIMIT_SECS) == "COMPLETED 0:0", run.output
    finally:
        slurm.end(run.job)
    assert "solved: mean return" in run.output
    assert "1 replay at" not in run.output or slurm_cluster.own_address() in run.output


def test_a_run_that_is_cancelled_is_continued(slurm, tmp_path):
    flags = ["--gin_file=impala/cartpole.gin", "--gin_bindings=experiment.solved_return = None"]
    run = _Job(slurm, tmp_path, *flags)
    run.wait_for(lambda: max(run.learner_steps(), default=0) > 20, 120.0)
    slurm.call("scancel", run.job)
    assert slurm.wait(run.job, 60.0).startswith("CANCELLED")
    assert "told to stop (exit code 0)" in run.output
    before = run.learner_steps()[-1]
    again = _Job(slurm, tmp_path, *flags)
    try:
        again.wait_for(lambda: max(again.learner_steps(), default=0) > before, 120.0)
        assert all(steps >= before for steps in again.learner_steps())
    finally:
        slurm.end(again.job)
