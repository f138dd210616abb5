"""What nodes answer before a run, and what is said of those that cannot run it."""

import json
import pathlib
import platform
import subprocess
import sys
import time

import pytest
from paths import CHECKOUT

import tfdrl
from tfdrl.errors import ConfigurationError
from tfdrl.launch import node_check
from tfdrl.launch.node_check import Answer

_GIN = "import tiny_program\nexperiment.architecture = @tiny()\n"


def _check(tmp_path, said="", silent=(), ahead_secs=0, **other):
    nonce_file = node_check.write_nonce(tmp_path)
    good = {
        "node": "n1",
        "python": platform.python_version(),
        "version": tfdrl.__version__,
        "clock_secs": time.time(),
        "nonce": nonce_file.read_text(),
        "digest": "d",
        "error": "",
        "ports": [1],
    }
    bad = {**good, "node": "n2", "clock_secs": time.time() + ahead_secs, **other}
    answers = {"n1": Answer(**good), "n2": Answer(**bad)}
    answers = {name: answer for name, answer in answers.items() if name not in silent}
    now = time.time()
    node_check.check(answers, ["n1", "n2"], nonce_file, "d", (now - 1, now), said)


def test_nodes_that_are_alike_may_run(tmp_path):
    _check(tmp_path)


@pytest.mark.parametrize(
    "other, words",
    [
        ({"python": "3.9.1"}, "n2 has tfdrl .* on Python 3.9.1, and this machine"),
        ({"version": "0.0.1"}, "n2 has tfdrl 0.0.1 on Python"),
        ({"nonce": ""}, "n2 does not see what is written to --root_dir=.*all nodes share"),
        ({"error": "No module named 'mine'"}, "n2: No module named 'mine'"),
        ({"digest": "e"}, "n2 reads other settings"),
        ({"ahead_secs": 3600}, "clock of n2 is 60 minutes ahead of"),
        ({"ahead_secs": -600}, "clock of n2 is 10 minutes behind"),
        ({"silent": ["n2"], "said": "No module named tfdrl"}, "n2 cannot run .*No module named"),
    ],
)
def test_what_a_node_lacks_is_said_with_its_name(tmp_path, other, words):
    with pytest.raises(ConfigurationError, match=words):
        _check(tmp_path, **other)


def test_a_node_answers_in_one_line(tmp_path):
    (tmp_path / "tiny.gin").write_text(_GIN)
    (tmp_path / "other.gin").write_text("import not_there\n" + _GIN)
    nonce_file = node_check.write_nonce(tmp_path)
    found = {}
    for name in ("tiny", "other"):
        command = [sys.executable, "-m", node_check.__name__, f"--gin_file={tmp_path}/{name}.gin"]
        command += [f"--nonce_file={nonce_file}", "--node=n1", "--ports=3"]
        environment = {"PYTHONPATH": f"{CHECKOUT}:{CHECKOUT / 'tests' / 'support'}"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        found[name] = node_check.parse("noise\n" + done.stdout)["n1"]
    assert found["tiny"].nonce == nonce_file.read_text() and not found["tiny"].error
    assert len(set(found["tiny"].ports)) == 3 and found["tiny"].digest
    assert "not_there" in found["other"].error


def test_lines_that_are_no_answers_are_left_out():
    assert node_check.parse("srun: error\n" + json.dumps({"nodes": 1})) == {}


def test_a_directory_that_is_not_there_is_not_waited_for(tmp_path):
    begin_secs = time.monotonic()
    assert node_check._read(pathlib.Path(tmp_path / "elsewhere" / "nonce")) == ""
    assert time.monotonic() - begin_secs < 5.0
