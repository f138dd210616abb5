"""What an import costs: the launcher, the topology and light actors never load TensorFlow."""

import json
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[1]
HEAVY = ("tensorflow", "tf_agents", "reverb", "tensorflow_probability", "keras")


def after_import(module):
    """(seconds it took, names of the top-level modules loaded) in a process of its own."""
    script = (
        "import json, sys, time\n"
        "start = time.perf_counter()\n"
        f"import {module}\n"
        "secs = time.perf_counter() - start\n"
        "print(json.dumps([secs, sorted({name.split('.')[0] for name in sys.modules})]))\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", script],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout.splitlines()[-1])


def test_import_tfdrl_is_quick():
    after_import("tfdrl")  # writes the byte code
    measured = [after_import("tfdrl") for _ in range(3)]
    secs = min(secs for secs, _ in measured)
    assert secs < 0.1
    assert not set(HEAVY) & set(measured[0][1])


@pytest.mark.parametrize(
    "module",
    [
        "tfdrl.launch.run",
        "tfdrl.launch.role",
        "tfdrl.configuration",
        "tfdrl.experiment",
        "tfdrl.topology",
        "tfdrl.architectures.apex",
        "tfdrl.architectures.dqn",
        "tfdrl.architectures.seed",
        "tfdrl.inference.remote_actor",
        "tfdrl.rpc.inference_client",
        "tfdrl.environments",
        "tfdrl.rpc.run_client",
        "tfdrl.rpc.run_server",
        "binaries.train",
        "binaries.plan",
        "binaries.benchmark",
        "binaries.track",
        "tfdrl.tracking.tracker",
        "tfdrl.tracking.csv_files",
    ],
)
def test_no_tensorflow(module):
    _, loaded = after_import(module)
    assert module.split(".")[0] in loaded
    assert not set(HEAVY) & set(loaded)


def test_the_list_of_heavy_modules_is_the_right_one():
    """Otherwise the tests above could not fail."""
    _, loaded = after_import("tfdrl.replay.transition_table")
    assert {"tensorflow", "tf_agents", "reverb", "keras"} <= set(loaded)
