"""Who sees which GPU, by an nvidia-smi that only prints; CUDA itself reads the variable."""

import os
import shutil
import subprocess
import sys

import fake_nvidia_smi
import pytest
from paths import python_path

from tfdrl.errors import EXIT_FAILED, ConfigurationError
from tfdrl.launch import gpus, role
from tfdrl.launch.local.launcher import crowding
from tfdrl.topology import Program, Role, actor_role, chief_role

_UUIDS = ["GPU-0a1b2", "GPU-1a1b2", "GPU-2a1b2"]


def _program(learners=1, **more):
    learner = chief_role("learner", "page", replicas=learners, clusters=True)
    return Program("impala", (learner, actor_role("page", 5, ("learner",)))).on_gpus(**more)


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """`machine(free_mb, ...)`: has so many GPUs."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def make(*free_mb, **more):
        there = fake_nvidia_smi.install(tmp_path / "bin", *free_mb, **more)
        monkeypatch.setenv("PATH", f"{there}:{os.environ['PATH']}")

    return make


@pytest.mark.parametrize(
    ("variable", "wanted"),
    [
        (None, _UUIDS),
        ("", []),
        ("2,0", [_UUIDS[2], _UUIDS[0]]),
        ("1,7,0", [_UUIDS[1]]),  # as CUDA does: what comes after one that is not there is not seen
        ("GPU-1a", [_UUIDS[1]]),
        ("MIG-5,0", ["MIG-5", _UUIDS[0]]),
        ("-1", []),
    ],
)
def test_visible_gpus_are_those_of_the_variable(machine, monkeypatch, variable, wanted):
    machine(143000, 143000, 143000)
    if variable is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", variable)
    assert [gpu.uuid for gpu in gpus.of(_program(names=None))] == wanted


def test_a_machine_without_nvidia_smi_shows_none(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert gpus.of(_program(names=None)) == []


@pytest.mark.parametrize(
    ("replicas", "wanted"),
    [(1, ["all"]), (2, ["0,2", "1"]), (3, ["0", "1", "2"]), (4, ["0", "1", "2", "0"])],
)
def test_replicas_of_one_role_split_the_gpus(replicas, wanted):
    there = [gpus.Gpu(str(i), str(i)) for i in range(3)]
    shared = Role("worker", "", replicas=replicas, devices="GPU")
    found = [gpus.share(shared, task, there) for task in range(replicas)]
    assert [share.get("CUDA_VISIBLE_DEVICES", "all") for share in found] == wanted
    assert gpus.share(Role("actor", "", replicas=4), 0, there) == {}


def test_learners_that_train_as_one_have_a_gpu_each(machine):
    machine(143000, 143000)
    assert len(gpus.of(_program(learners=2, names=None))) == 2
    with pytest.raises(ConfigurationError, match=r"3 learners train as one.*this machine shows 2"):
        gpus.of(_program(learners=3, names=None))
    assert gpus.of(_program(learners=3, names=())) == []


def test_a_full_gpu_is_said_unless_nobody_sees_it(machine, monkeypatch):
    machine(143000, 312)
    with pytest.raises(ConfigurationError, match=r"GPU 1 \(NVIDIA H200\) has 312 of 143,771 MB"):
        gpus.of(_program(names=("learner",)))
    assert gpus.of(_program(names=())) == []
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert len(gpus.of(_program(names=("learner",)))) == 1


def test_roles_that_see_gpus():
    by_default = {role.name: role.devices for role in _program(names=None).roles}
    assert by_default == {"learner": "GPU", "actor": "CPU"}
    chosen = {role.name: role.devices for role in _program(names=("actor",)).roles}
    assert chosen == {"learner": "CPU", "actor": "GPU"}
    with pytest.raises(ConfigurationError, match="no role 'lerner'; its roles are: learner, actor"):
        _program(names=("lerner",))
    assert chief_role("coordinator", "page").devices == "CPU"


_DRIVER = """
#include <stdio.h>
#include <stdlib.h>
int cuInit(unsigned flags) {
  const char *seen = getenv("CUDA_VISIBLE_DEVICES"), *growth = getenv("TF_FORCE_GPU_ALLOW_GROWTH");
  printf("%s %s\\n", seen ? seen : "all", growth ? growth : "unset");
  fflush(stdout);
  return 100;
}
"""
_FORKS = """
import os, tensorflow as tf
from tfdrl.launch import gpus
for devices in ("CPU", "GPU"):
    if os.fork() == 0:
        gpus.see(devices)
        tf.config.list_physical_devices()
        os._exit(0)
    os.wait()
"""


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc, which makes the driver, is not here")
def test_a_forked_process_hides_gpus_after_tensorflow_was_imported(tmp_path):
    """What a CUDA driver, which only records, reads when TensorFlow first asks it for devices."""
    (tmp_path / "driver.c").write_text(_DRIVER)
    command = ["gcc", "-shared", "-fPIC", "-o", f"{tmp_path}/libcuda.so.1", f"{tmp_path}/driver.c"]
    subprocess.run(command, check=True)
    there = {**os.environ, "PYTHONPATH": python_path(), "LD_LIBRARY_PATH": str(tmp_path)}
    there.pop("CUDA_VISIBLE_DEVICES", None)
    done = subprocess.run([sys.executable, "-c", _FORKS], env=there, capture_output=True, text=True)
    assert done.stdout.splitlines() == [" unset", "all true"]


@pytest.mark.parametrize(
    "text",
    [
        "OOM when allocating tensor with shape[32,84,84,4] on /device:GPU:0 by allocator GPU_0_bfc",
        "Graph execution error:\n\nRESOURCE_EXHAUSTED: Out of memory while trying to allocate 5",
        "cudaSetDevice() on GPU:0 failed. Status: out of memory",
    ],
)
def test_a_role_says_that_a_device_is_full(capsys, text):
    def fail(experiment, context):
        raise RuntimeError(text)

    failing = Role("learner", "")
    object.__setattr__(failing, "load", lambda: fail)
    assert role.call(failing, None, None, {}) == EXIT_FAILED
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("tfdrl learner: a device's memory is full (")
    assert "use a smaller one" in last


def test_other_errors_are_no_full_device():
    assert gpus.words_of_full_memory(ValueError("RESOURCE_EXHAUSTED: message too large")) == ""


def test_more_processes_than_cores_are_said():
    program = _program(names=None)
    (line,) = crowding(program, cores=2)
    assert line.startswith("  NOTE: 5 actor processes share 2 cores: fewer, with more")
    assert crowding(program, cores=5) == []
