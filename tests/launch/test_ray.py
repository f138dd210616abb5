"""What the launcher of a Ray cluster does without one."""

import concurrent.futures
import os
import pathlib
import signal
import socket
import sys
import types

import pytest

from binaries import train
from tfdrl.errors import ConfigurationError
from tfdrl.launch import step
from tfdrl.launch.placement import Node
from tfdrl.launch.ray import agent, agents, cluster, reservation
from tfdrl.topology import Resources


def _node(number, host="vm"):
    return {
        "NodeID": f"{number}" * 8,
        "NodeManagerHostname": host,
        "NodeManagerAddress": f"10.0.0.{number}",
    }


def test_a_node_has_what_nobody_has_taken():
    free = {"1" * 8: {"CPU": 3.5, "GPU": 1.0, "memory": float(5 << 30)}, "2" * 8: {"CPU": 8.0}}
    nodes = cluster.parse_nodes([_node(1, "a"), _node(2, "b"), _node(3, "c")], free)
    assert nodes == [
        Node("a", "10.0.0.1", 3, 1, 5 << 10),
        Node("b", "10.0.0.2", 8, 0, 0),
        Node("c", "10.0.0.3", 0, 0, 0),
    ]


def test_nodes_of_one_host_have_different_names():
    nodes = cluster.parse_nodes([_node(1), _node(2), _node(3, "c")], {})
    assert [node.name for node in nodes] == ["vm-111111", "vm-222222", "c"]


def test_a_node_s_bundle_is_what_its_processes_want():
    a, b = Node("a", "10.0.0.1"), Node("b", "10.0.0.2")
    wanted = {
        "learner": Resources(cpus=2, gpus=1, memory_mb=100),
        "actor": Resources(cpus=1),
        "evaluator": Resources(cpus=0),
    }
    placed = {"learner": [a], "actor": [a, b, b], "evaluator": [Node("c", "10.0.0.3")]}
    assert reservation.bundles_of(wanted, placed) == {
        "a": {"CPU": 3.0, "GPU": 1.0, "memory": float(100 << 20)},
        "b": {"CPU": 2.0},
    }


def test_a_process_has_the_node_s_variables_and_then_the_launcher_s():
    launcher = {
        "PATH": "/launcher",
        "PYTHONPATH": "/x:/y",
        "TF_XLA_FLAGS": "--a",
        "RAY_ADDRESS": "10.0.0.1:6379",
        "CUDA_VISIBLE_DEVICES": "3",
        "TFDRL_LAUNCHER_PID": "12",
    }
    node = {"PATH": "/node", "PYTHONPATH": "/job:/x", "RAY_JOB_ID": "1"}
    assert agent.merged(launcher, node) == {
        "PATH": "/node",
        "PYTHONPATH": "/job:/x:/y",
        "TF_XLA_FLAGS": "--a",
        "RAY_JOB_ID": "1",
    }


def test_a_directory_that_a_node_lacks_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no .*/gone here: start in a directory"):
        agent.Surroundings(str(tmp_path / "gone"), {}).check()


_ROLE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *unused: sys.exit(5))
print('up', flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("word, code", [(step.STOP, 5), (step.KILL, -signal.SIGKILL)])
def test_an_agent_passes_the_launcher_s_word_on(tmp_path, word, code):
    log, here = tmp_path / "log", agent.Surroundings(os.getcwd(), {})
    held = agent.Agent("actor-0", ["python", "-c", _ROLE], log, here)
    while "up" not in log.read_text():
        pass
    held.say(word)
    assert held.wait() == code
    held.say(word)  # too late, and no error


def test_ray_that_is_not_installed_is_said(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigurationError, match=r"Ray cannot be imported here .*tfdrl\[ray\]"):
        cluster.Cluster("127.0.0.1:6379")


@pytest.mark.parametrize(
    "address, words",
    [
        ("nowhere", "give host:port of the cluster"),
        ("ray://head:10001", "submit it with `ray job submit`"),
        ("127.0.0.1:{free}", "there is no Ray cluster at 127.0.0.1:.*; give --ray_address"),
        ("127.0.0.1:99999", "there is no Ray cluster at"),
    ],
)
def test_an_address_without_a_cluster_is_refused_at_once(monkeypatch, address, words):
    monkeypatch.setattr(cluster, "the_library", lambda: None)
    with socket.socket() as taken:  # and nobody listens
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(ConfigurationError, match=words):
            cluster.Cluster(address.format(free=taken.getsockname()[1]))


@pytest.mark.parametrize(
    "error, words",
    [
        (
            ConnectionError("Could not find any running Ray instance. Set `--address`."),
            r"no Ray cluster on this machine \(Could not find any running Ray instance\); give",
        ),
        (
            RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.9.0\n"),
            r"another Ray or Python than this machine; install the same .*Ray: 2\.9\.0",
        ),
    ],
)
def test_what_ray_refuses_is_a_sentence_of_ours(monkeypatch, error, words):
    def init(**unused):
        raise error

    monkeypatch.delenv(cluster.ADDRESS_VARIABLE, raising=False)
    monkeypatch.setattr(cluster, "the_library", lambda: types.SimpleNamespace(init=init))
    with pytest.raises(ConfigurationError, match=words):
        cluster.Cluster()


def _launcher(*flags):
    values = train._flags()
    values(["tfdrl-train", *flags])
    return train._launcher(values)


@pytest.mark.parametrize(
    "flags, words",
    [
        (("--ray_address=a:1",), "--ray_address goes with --launcher=ray"),
        (("--launcher=slurm", "--ray_address=a:1"), "--ray_address goes with --launcher=ray"),
        (("--launcher=ray", "--requeue"), "--requeue goes with --launcher=slurm; leave it out"),
    ],
)
def test_a_flag_of_another_launcher_is_refused(flags, words):
    with pytest.raises(ConfigurationError, match=words):
        _launcher(*flags)


def test_results_are_not_left_where_ray_removes_them(tmp_path):
    from tfdrl.launch.ray.launcher import check_root_dir

    check_root_dir(tmp_path / "run", pathlib.Path("/elsewhere"))
    with pytest.raises(ConfigurationError, match="among the files that Ray has brought"):
        check_root_dir(tmp_path / "runs" / "a", tmp_path)


def test_what_ray_says_is_a_line():
    raised = "ray::ask() (pid=7)\n  File x, line 3\nFileNotFoundError: there is no /a here\n"
    assert cluster.words_of(RuntimeError(raised)) == "FileNotFoundError: there is no /a here"
    assert cluster.words_of(RuntimeError("It died.\n\tIts node, too.")) == "It died. Its node, too."
    assert cluster.words_of(RuntimeError()) == "RuntimeError"


@pytest.mark.parametrize("has_gone", [False, True])
def test_who_is_killed_with_its_node_has_not_died_by_itself(has_gone, tmp_path, monkeypatch):
    """An actor that ends kills what it has started, and tells of that before it is gone."""
    monkeypatch.setattr(agents, "_LAST_WORDS_SECS", 0.0)
    node_is_gone, calls = [], []

    def call(outcome=None):
        future = concurrent.futures.Future()
        if outcome is not None:
            future.set_result(outcome)
        calls.append(future)
        return types.SimpleNamespace(future=lambda: future)

    actor = types.SimpleNamespace(
        wait=types.SimpleNamespace(remote=lambda: call(-signal.SIGKILL)),
        __ray_ready__=types.SimpleNamespace(remote=call),
    )
    process = agents.AgentProcess(
        actor, lambda actor: None, lambda: bool(node_is_gone), "learner", tmp_path / "log"
    )
    assert process.poll() is None
    (_, _, asked_again) = calls
    if has_gone:
        asked_again.set_exception(RuntimeError("the actor died"))
        assert process.poll() is None
        node_is_gone.append(True)
    else:
        asked_again.set_result(None)
    assert process.poll() == -signal.SIGKILL
    assert len(calls) == 3
