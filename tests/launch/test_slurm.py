"""What is read from Slurm, what it is told, and the first process of a step; no cluster."""

import signal
import subprocess
import sys
import time

import pytest
from paths import CHECKOUT

from binaries import train
from tfdrl.errors import ConfigurationError
from tfdrl.launch import step
from tfdrl.launch.launcher import ProcessSpec
from tfdrl.launch.placement import Node
from tfdrl.launch.slurm import job, launcher, steps
from tfdrl.topology import Resources, Role

_JOB = """JobId=4 JobName=b.sh
   NodeList=gpu[1-2],n7 TRES=cpu=12,mem=3000M,node=3,billing=12
   JOB_GRES=gpu:4
     Nodes=gpu[1-2] CPU_IDs=0-3,8 Mem=16000 GRES=gpu:a100:2(IDX:0-1)
     Nodes=n7 CPU_IDs=5 Mem=0 GRES=
   MinCPUsNode=4 MinMemoryNode=1000M"""
_NODES = """NodeName=n1 Arch=x86_64 NodeAddr=10.1.0.1 NodeHostName=vm State=MIXED ThreadsPerCore=1
NodeName=n2 Arch=x86_64 NodeAddr=n2.ib NodeHostName=vm State=DOWN+DRAIN ThreadsPerCore=1
NodeName=n3 Arch=x86_64 NodeAddr=n3 NodeHostName=vm State=IDLE+NOT_RESPONDING
NodeName=n4 Arch=x86_64 NodeAddr=n4 NodeHostName=vm State=ALLOCATED* ThreadsPerCore=1
NodeName=n5 Arch=x86_64 NodeAddr=n5 NodeHostName=vm State=ALLOCATED+DRAIN ThreadsPerCore=1"""


def test_nodes_of_a_job_with_their_cores_gpus_and_memory():
    assert job.parse_parts(_JOB) == [("gpu[1-2]", 5, 2, 16000), ("n7", 1, 0, 0)]


def test_where_nodes_are_reached_and_which_are_gone():
    addresses = job.parse_addresses(_NODES)
    assert addresses["n1"] == "10.1.0.1" and addresses["n2"] == "n2.ib"
    assert job.parse_gone(_NODES) == {"n2", "n3", "n4"}


@pytest.mark.parametrize(
    "text, is_leaving",
    [
        ("JobState=RUNNING PreemptEligibleTime=2026-01-01T00:00:00 PreemptTime=None", False),
        ("JobState=RUNNING PreemptTime=2026-01-01T00:00:00", True),
        ("JobState=COMPLETING PreemptTime=2026-01-01T00:00:00", False),
        ("JobState=CANCELLED Reason=None", False),
    ],
)
def test_a_job_that_is_preempted_and_runs_on_for_a_while(text, is_leaving):
    assert job.parse_leaving(text) is is_leaving


@pytest.mark.parametrize(
    "number, is_leaving, requeue, words",
    [
        (signal.SIGUSR1, False, True, "job 7 is queued again, and continues then"),
        (signal.SIGUSR1, False, False, "its time limit is near: submit it again"),
        (signal.SIGTERM, True, True, "job 7 is queued again"),
        (signal.SIGTERM, True, False, "it was preempted: submit it again"),
        (signal.SIGTERM, False, True, ""),
        (signal.SIGINT, False, True, ""),
    ],
)
def test_which_signals_put_the_job_into_the_queue_again(
    monkeypatch, number, is_leaving, requeue, words
):
    calls = []
    monkeypatch.setattr(job.Job, "is_leaving", lambda self: is_leaving)
    monkeypatch.setattr(job.Job, "requeue", lambda self: calls.append(self.number))
    said = launcher.SlurmLauncher(job.Job("7"), requeue).stopped_by(number)
    assert said.startswith(words) and bool(said) == bool(words)
    assert calls == (["7"] if "is queued again" in words else [])


def test_outside_a_job_the_cure_is_said():
    with pytest.raises(ConfigurationError, match=r"SLURM_JOB_ID is not set.*salloc.*sbatch"):
        job.Job.of({})
    assert job.Job.of({"SLURM_JOB_ID": "7"}) == job.Job("7")


def test_a_command_of_slurms_that_is_not_there_or_fails(monkeypatch):
    with pytest.raises(ConfigurationError, match="there is no no-such-slurm here"):
        job.call("no-such-slurm", "show")
    with pytest.raises(ConfigurationError, match="false has failed"):
        job.call("false")


@pytest.mark.parametrize(
    "wants, words, others",
    [
        (Resources(), ["--overlap", "--mem=0", "--gres=none"], ["--exact", "--cpus-per-task=1"]),
        (
            Resources(cpus=8, gpus=2, memory_mb=64),
            ["--exact", "--cpus-per-task=8", "--gres=gpu:2", "--mem=64M"],
            ["--overlap"],
        ),
        (Resources(cpus=0), ["--overlap", "--mem=0"], ["--exact", "--cpus-per-task=0"]),
    ],
)
def test_the_srun_of_a_step(wants, words, others):
    command = steps.srun_command("actor-3-1", "n2", wants)
    assert {*words, "--nodelist=n2", "--ntasks=1", "--nodes=1"} <= set(command)
    assert not set(others) & set(command)


@pytest.mark.parametrize(
    "nodes, flag", [(("n1",), "--overlap"), (("n1", "n1"), "--exact"), (("n1", "n2"), "--overlap")]
)
def test_only_rivals_for_the_gpus_of_a_node_are_bound_to_cores(monkeypatch, nodes, flag, tmp_path):
    role = Role("learner", "", replicas=len(nodes), serves=True, devices="GPU")
    wanted = {"learner": Resources(cpus=2, gpus=1)}
    placed = {"learner": [Node(name, name, 8, 2, None) for name in nodes]}
    commands = []
    monkeypatch.setattr(subprocess, "Popen", lambda command, **more: commands.append(command))
    starter = steps.Steps(job.Job("7"), wanted, placed, print)
    with (tmp_path / "log").open("wb") as log:
        starter.start(ProcessSpec(role, 0, ["true"], log, {}, "n1"))
    assert ({"--overlap", "--exact"} & set(commands[0])) == {flag}
    assert "--gres=gpu:1" in commands[0]


def test_flags_of_the_job_are_none_of_a_step():
    given = {
        "SLURM_JOB_ID": "7",
        "SLURM_CPUS_PER_TASK": "4",
        "SLURM_MEM_PER_CPU": "100",
        "SLURM_NTASKS": "3",
        "TFDRL_LAUNCHER_PID": "12",
        "HOME": "/root",
    }
    assert steps.step_environment(given) == {"SLURM_JOB_ID": "7", "HOME": "/root"}


def test_all_nodes_are_asked_at_once():
    flags = ["--gin_file=a.gin"]
    command = launcher.check_command(["n1", "n2"], ["-m", "page", *flags])
    assert {"--nodes=2", "--nodelist=n1,n2", "--overlap"} <= set(command)
    assert command[-4:] == [sys.executable, "-m", "page", *flags]


_ROLE = """
import signal, sys, time
def stop(*unused):
    print('told', flush=True)
    {end}
signal.signal(signal.SIGTERM, stop)
print('up', flush=True)
time.sleep(60)
"""


@pytest.fixture
def start():
    started = []

    def begin(end="sys.exit(0)"):
        command = [sys.executable, "-m", step.__name__, "actor-0-1", sys.executable, "-c"]
        process = subprocess.Popen(
            [*command, _ROLE.format(end=end)],
            cwd=CHECKOUT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        started.append(process)
        assert process.stdout.readline() == b"up\n"
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def _end(process):
    return process.wait(10.0), process.stdout.read().decode()


_OVER = step.end_line("actor-0-1") + "\n"


def test_a_step_stops_when_the_launcher_says_so(start):
    process = start()
    process.stdin.write(step.STOP)
    assert _end(process) == (0, "told\n" + _OVER)


def test_a_step_stops_when_the_launcher_is_gone(start):
    process = start()
    process.stdin.close()
    assert _end(process) == (0, "told\n" + _OVER)


def test_a_step_that_slurm_ends_has_not_finished(start):
    process = start()
    process.send_signal(signal.SIGTERM)
    assert _end(process) == (128 + signal.SIGTERM, "told\n")


def test_a_step_that_slurm_and_launcher_end_has(start):
    process = start("time.sleep(1); sys.exit(0)")
    process.send_signal(signal.SIGTERM)
    process.stdin.write(step.STOP)
    code, said = _end(process)
    assert code == 0 and said.endswith(_OVER)


def test_a_step_is_killed_with_all_that_it_has_started(start):
    process = start("pass")
    process.stdin.write(step.STOP)
    time.sleep(0.2)
    assert process.poll() is None
    process.stdin.write(step.KILL)
    assert _end(process) == (128 + signal.SIGKILL, "told\n")


@pytest.mark.parametrize("code", [0, 3])
def test_the_end_of_a_step_is_that_of_its_role(start, code):
    process = start(f"sys.exit({code})")
    process.stdin.write(step.STOP)
    assert _end(process)[0] == code


def test_steps_that_do_not_end_are_waited_for_together(tmp_path, monkeypatch):
    monkeypatch.setattr(job.Job, "cancel_step", lambda self, name: None)
    monkeypatch.setattr(steps, "_KILL_SECS", 1.0)
    processes = []
    for number in range(5):
        popen = subprocess.Popen(["sleep", "60"], stdin=subprocess.PIPE)
        processes.append(steps.StepProcess(popen, f"a-{number}", job.Job("7"), tmp_path / "log"))
    begin_secs = time.monotonic()
    for process in processes:
        process.kill()
    assert [process.wait() for process in processes] == [-9] * 5
    assert time.monotonic() - begin_secs < 3.0


@pytest.mark.parametrize(
    "srun, said, code",
    [
        ("exit 0", "", 1),  # the node of the step has gone down
        ("exit 0", step.end_line("a-0"), 0),
        ("exit 3", "", 3),
        ("exit 137", "", -9),
        ("kill -9 $$", "", -9),
    ],
)
def test_what_an_srun_says_of_its_step(tmp_path, monkeypatch, srun, said, code):
    cancelled = []
    monkeypatch.setattr(job.Job, "cancel_step", lambda self, name: cancelled.append(name))
    log = tmp_path / "log"
    log.write_text(f"{said}\n")
    popen = subprocess.Popen(["sh", "-c", srun], stdin=subprocess.PIPE)
    process = steps.StepProcess(popen, "a-0", job.Job("7"), log)
    assert process.wait() == code
    assert cancelled == (["a-0"] if srun.startswith("kill") else [])


def _launcher(*flags):
    values = train._flags()
    values(["tfdrl-train", *flags])
    return train._launcher(values)


def test_outside_a_job_there_is_no_launcher(monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    with pytest.raises(ConfigurationError, match="this is no Slurm job"):
        _launcher("--launcher=slurm")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert isinstance(_launcher("--launcher=slurm", "--requeue"), launcher.SlurmLauncher)


@pytest.mark.parametrize("flag", ["--resources=learner=cpu:8", "--insecure_network", "--requeue"])
def test_what_means_nothing_on_one_machine_is_not_left_out_in_silence(flag):
    with pytest.raises(ConfigurationError, match=r"goes with --launcher=slurm"):
        _launcher(flag)
    assert _launcher().is_local
