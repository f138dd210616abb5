"""A real Slurm cluster on this machine: munged, slurmctld and a slurmd for each node."""

from __future__ import annotations

import contextlib
import os
import pathlib
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence

from paths import CHECKOUT

from tfdrl.launch.local.addresses import free_ports
from tfdrl.launch.process import arguments_of

_PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol", "scancel", "runuser")
_START_SECS = 30.0
_CONF = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
AuthType=auth/munge
AuthInfo=socket={directory}/munge/socket,cred_expire=5
SlurmUser=root
ProctrackType=proctrack/pgid
TaskPlugin=task/{binding}
GresTypes=gpu
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SlurmdParameters=config_overrides
MpiDefault=none
ReturnToService=1
StateSaveLocation={directory}/state
SlurmdSpoolDir={directory}/spool.%n
SlurmctldPidFile={directory}/slurmctld.pid
SlurmdPidFile={directory}/%n.pid
SlurmctldLogFile={directory}/slurmctld.log
SlurmdLogFile={directory}/%n.log
SlurmctldParameters=enable_configless
SchedulerParameters=batch_sched_delay=0,sched_interval=2
KillWait=20
SlurmdTimeout=10
NodeName=n[1-{nodes}] NodeHostname={host} NodeAddr={address} Port=[{ports[1]}-{ports[2]}] \\
  CPUs={cpus} RealMemory=16000{gpu}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
PartitionName=all Nodes=n[1-{nodes}] Default=YES MaxTime=INFINITE State=UP PriorityTier=1
PartitionName=patient Nodes=n[1-{nodes}] MaxTime=INFINITE State=UP PriorityTier=1 GraceTime=30
PartitionName=urgent Nodes=n[1-{nodes}] MaxTime=INFINITE State=UP PriorityTier=2
"""


def missing() -> str:
    """Why there can be no cluster here; "" if there can."""
    if os.geteuid() != 0:
        return "Slurm's daemons want root"
    found = os.environ["PATH"] + ":/usr/sbin"
    lacking = [name for name in _PROGRAMS if not shutil.which(name, path=found)]
    if lacking:
        return f"no {', '.join(lacking)} (apt-get install slurm-wlm munge)"
    return ""


class Cluster:
    """A cluster that runs; every command is told of it by its environment."""

    def __init__(self, directory: pathlib.Path, nodes: int):
        self.directory, self.names = directory, [f"n{i + 1}" for i in range(nodes)]
        support = CHECKOUT / "tests" / "support"
        self.environment = {
            **os.environ,
            "SLURM_CONF": str(directory / "slurm.conf"),
            "PYTHONPATH": f"{CHECKOUT}:{support}",
            "PATH": os.environ["PATH"] + ":/usr/sbin",
        }

    def call(self, *command: str) -> str:
        """What a command prints; it must succeed."""
        done = subprocess.run(
            command,
            env=self.environment,
            cwd=CHECKOUT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def submit(self, script: pathlib.Path, *flags: str) -> str:
        """The number of a new job, which prints to SCRIPT.out."""
        out = f"--output={script}.out"
        return self.call("sbatch", "--parsable", out, *flags, str(script)).strip()

    def state(self, job: str) -> str:
        """Its state and exit code, as "COMPLETED 0:0"."""
        text = self.call("scontrol", "show", "job", job)
        state, code = (re.search(rf"{name}=(\S+)", text)[1] for name in ("JobState", "ExitCode"))
        return f"{state} {code}"

    def wait(self, job: str, limit_secs: float, states=("COMPLETED", "FAILED", "CANCELLED")) -> str:
        """Its state once it is one of `states`."""
        deadline_secs = time.monotonic() + limit_secs
        while not (state := self.state(job)).startswith(tuple(states)):
            assert time.monotonic() < deadline_secs, f"{state} after {limit_secs:g} s"
            time.sleep(0.2)
        return state

    def end(self, job: str) -> None:
        """Kills all of it, if it still runs, and waits until its nodes are free."""
        command = ["scancel", "--quiet", "--signal=KILL", "--full", job]
        subprocess.run(command, env=self.environment, timeout=60)
        subprocess.run(["scancel", "--quiet", job], env=self.environment, timeout=60)
        self.wait(job, 60.0)

    def fail(self, node: str) -> None:
        """What runs on a node is gone at once, as if its power were."""
        listed = self.call("squeue", "--steps", "--noheader", "--format=%i %N")
        steps = {f"[{line.split()[0]}]" for line in listed.splitlines() if line.endswith(node)}
        gone = [pid for pid in _pids() if _first_argument(pid) in steps]
        gone += [pid for pid in _pids() if _parent(pid) in gone]
        for pid in [int((self.directory / f"{node}.pid").read_text()), *gone]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def repair(self, node: str) -> None:
        """The node is there again, empty."""
        subprocess.run(["slurmd", "-N", node], env=self.environment, check=True, timeout=60)
        _wait_until_idle(self, [node])

    def steps(self, job: str) -> dict[str, tuple[str, str]]:
        """(step, node) by the step's name."""
        listed = self.call("squeue", "--steps", "--noheader", "-j", job, "--format=%i %j %N")
        rows = [line.split() for line in listed.splitlines()]
        return {name: (step, node) for step, name, node in rows}


@contextlib.contextmanager
def cluster(
    nodes: int = 3, cpus: int = 4, has_gpus: bool = False, binding: str = "none"
) -> Iterator[Cluster]:
    """A cluster of so many nodes with so many cores each, all of them this machine.

    With GPUs each node has one, whose device is /dev/null. `binding` is Slurm's plugin: with
    "affinity" tasks are bound to cores, of which `cpus` must then be there.
    """
    # Not pytest's directory: munge must get there, as a user of its own.
    directory = pathlib.Path(tempfile.mkdtemp(prefix="tfdrl-slurm-", dir="/tmp"))
    directory.chmod(0o755)
    found = Cluster(directory, nodes)
    try:
        _configure(directory, nodes, cpus, has_gpus, binding)
        _start_munged(directory)
        subprocess.run(["slurmctld"], env=found.environment, check=True, timeout=_START_SECS)
        for name in found.names:
            command = ["slurmd", "-N", name]
            subprocess.run(command, env=found.environment, check=True, timeout=_START_SECS)
        _wait_until_idle(found, found.names)
        yield found
    finally:
        with contextlib.suppress(Exception):
            found.call("scancel", "--user=root")
            time.sleep(1.0)
        for path in [*directory.glob("*.pid"), *directory.glob("munge/pid")]:
            with contextlib.suppress(ProcessLookupError, ValueError):
                os.kill(int(path.read_text()), signal.SIGKILL)
        shutil.rmtree(directory, ignore_errors=True)


def own_address() -> str:
    """An address of this machine that is not the loopback's; the loopback's if there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 1))
        except OSError:
            return "127.0.0.1"
        return probe.getsockname()[0]


def _configure(
    directory: pathlib.Path, nodes: int, cpus: int, has_gpus: bool, binding: str
) -> None:
    (directory / "state").mkdir()
    numbers = free_ports()
    first = next(n for n in numbers if n < 32000)
    values = {
        "ports": (next(numbers), first, first + nodes - 1),
        "host": socket.gethostname().partition(".")[0],
        "address": own_address(),
        "binding": binding,
        "gpu": " Gres=gpu:1" * has_gpus,
    }
    gpus = f"NodeName=n[1-{nodes}] Name=gpu File=/dev/null\n" * has_gpus
    (directory / "gres.conf").write_text(gpus)
    text = _CONF.format(directory=directory, nodes=nodes, cpus=cpus, **values)
    (directory / "slurm.conf").write_text(text)


def _start_munged(directory: pathlib.Path) -> None:
    home = directory / "munge"
    home.mkdir(mode=0o755)
    (home / "key").write_bytes(os.urandom(1024))
    user = pwd.getpwnam("munge")
    for path, mode in ((home / "key", 0o400), (home, 0o755)):
        os.chown(path, user.pw_uid, user.pw_gid)
        path.chmod(mode)
    flags = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log"}
    command = ["runuser", "-u", "munge", "--", "/usr/sbin/munged"]
    command += [f"--{flag}={home / name}" for flag, name in flags.items()]
    command.append(f"--seed-file={home}/seed")
    done = subprocess.run(command, capture_output=True, text=True, timeout=_START_SECS)
    assert done.returncode == 0, done.stderr


def _pids() -> list[int]:
    return [int(path.name) for path in pathlib.Path("/proc").glob("[0-9]*")]


def _first_argument(pid: int) -> str:
    with contextlib.suppress(OSError):  # it has just ended
        return "".join(arguments_of(pid)[1:2])
    return ""


def _parent(pid: int) -> int:
    with contextlib.suppress(OSError):
        stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
        return int(stat.rpartition(")")[2].split()[1])
    return 0


def _wait_until_idle(found: Cluster, names: Sequence[str]) -> None:
    deadline_secs = time.monotonic() + _START_SECS
    while time.monotonic() < deadline_secs:
        with contextlib.suppress(AssertionError):
            which = ("--partition=all", f"--nodes={','.join(names)}")
            states = found.call("sinfo", "--noheader", *which, "--Node", "--format=%T").split()
            if states == ["idle"] * len(names):
                return
        time.sleep(0.2)
    logs = (found.directory / "slurmctld.log").read_text()[-2000:]
    raise AssertionError(f"the cluster did not start: {logs}")
