"""Fork servers with real processes: what is forked is as if it had been started afresh."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from paths import CHECKOUT, python_path

from tfdrl.launch.launcher import ProcessSpec
from tfdrl.launch.local import fork_client
from tfdrl.launch.local import processes as local_processes
from tfdrl.launch.local.preloading import preloaded
from tfdrl.launch.local.processes import ForkServers
from tfdrl.launch.process import arguments_of, state_of
from tfdrl.launch.replica import Replica
from tfdrl.launch.settings import Limits
from tfdrl.launch.supervisor import Supervisor, role_environment
from tfdrl.topology import Program, Role

_LIGHT = Role("actor", "forked_role:console", needs_tensorflow=False, replicas=4)
_HEAVY = Role("learner", "forked_role:console", needs_tensorflow=True)


@pytest.fixture
def servers(tmp_path, monkeypatch):
    """Makes the fork servers of a program of some roles; ends them, and what they forked."""
    monkeypatch.setenv("PYTHONPATH", python_path(tmp_path))
    made = []

    def make(*roles, modules=()):
        said = []
        monkeypatch.delenv("TF_NUM_INTRAOP_THREADS", raising=False)  # it may differ by role
        program = Program("forked", roles, chief=roles[0].name)
        environment = {**role_environment(), "HOME_OF_THE_SERVER": "x"}
        made.append(ForkServers(program, modules, tmp_path, environment, notify=said.append))
        return made[-1], said

    yield make
    for found in made:
        found.close()


@pytest.fixture
def start(tmp_path):
    """Starts one role that does what it is told; returns its process and its log."""
    started = []

    def start_role(servers, role, *words, **environment):
        _wait(lambda: servers.is_ready(role))
        path = tmp_path / f"{role.name}-{len(started)}.log"
        command = [sys.executable, "-m", "forked_role", *words]
        with path.open("ab") as log:
            told = {**role_environment(), **environment}
            started.append(servers.start(ProcessSpec(role, 3, command, log, told)))
        return started[-1], path

    yield start_role
    for process in started:
        try:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        except (ProcessLookupError, ChildProcessError):
            pass


def _wait(condition, limit_secs=60.0):
    deadline = time.monotonic() + limit_secs
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
    return value


def _fork_server(directory):
    """The process id of the fork server that runs for `directory`."""

    def find():
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = arguments_of(int(path.name))
                if {f"--root_dir={directory.parent}", "tfdrl.launch.local.fork_server"} <= set(
                    words
                ):
                    return int(path.name)
        return None

    return _wait(find, 5.0)


def test_forked_process_is_as_if_started_afresh(servers, start, tmp_path):
    found, said = servers(_LIGHT)
    process, log = start(found, _LIGHT, "tell", "--a=b c", FORKED_ROLE="yes")
    assert process.wait() == 5
    told = json.loads(log.read_text())
    assert told["pid"] == process.pid == told["session"] == told["group"]
    assert told["parent"] == os.getpid()
    assert told["directory"] == os.getcwd()
    assert told["variable"] == "yes" and told["other_variable"] is None
    assert told["arguments"] == ["tell", "--a=b c"]
    assert told["files"] == ["0", "1", "2", "3", "4"]  # 3: says the end; 4: the listing itself
    assert told["interrupt"] and not told["tensorflow"]
    assert told["comm"] == "tfdrl actor 3"
    assert told["stdin"] == "/dev/null"
    assert not said


def test_command_line_tells_which_role_it_is(servers, start):
    found, _ = servers(_LIGHT)
    process, log = start(found, _LIGHT, "wait", "--role=actor", "--root_dir=/runs/a")
    _wait(lambda: log.read_text())
    line = pathlib.Path(f"/proc/{process.pid}/cmdline").read_bytes().rstrip(b"\0").decode()
    assert line == "tfdrl actor 3: -m forked_role wait --role=actor --root_dir=/runs/a"


def test_two_processes_draw_different_random_numbers(servers, start):
    found, _ = servers(_LIGHT)
    drawn = []
    for _ in range(2):
        process, log = start(found, _LIGHT, "tell")
        process.wait()
        drawn.append(json.loads(log.read_text())["random"])
    assert drawn[0][0] != drawn[1][0] and drawn[0][1] != drawn[1][1]


def test_exception_and_signal_end_it_as_they_would(servers, start):
    found, _ = servers(_LIGHT)
    process, log = start(found, _LIGHT, "raise")
    assert process.wait() == 1
    assert "RuntimeError: a fault of the role" in log.read_text()
    process, log = start(found, _LIGHT, "wait")
    _wait(lambda: "waits" in log.read_text())
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait() == -signal.SIGTERM


def test_function_that_returns_or_exits_with_a_text(servers, start):
    found, _ = servers(_LIGHT)
    for behaviour, code, text in (
        ("return", 0, ""),
        ("exit", 0, ""),
        ("exit_with_text", 1, "a sentence for the user\n"),
    ):
        process, log = start(found, _LIGHT, behaviour)
        assert process.wait() == code
        assert log.read_text() == text


def test_a_role_in_which_something_calls_exit_has_not_finished(servers, start):
    found, _ = servers(_LIGHT)
    process, log = start(found, _LIGHT, "exit_of_a_library")
    assert process.wait() == 1
    said = log.read_text().splitlines()[-1]
    assert said.startswith("tfdrl actor: the process ended") and "has called exit(0)" in said


def test_whoever_knows_a_process_can_kill_its_group(servers, start):
    """At once: the group is there before its number is told."""
    found, _ = servers(_LIGHT)
    for _ in range(30):
        process, _ = start(found, _LIGHT, "wait")
        os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def test_a_process_that_cannot_be_forked_is_no_process(servers, start, monkeypatch):
    preload = ["json", "forked_role:spoil_second_fork"]
    monkeypatch.setattr(local_processes, "preloaded", lambda *unused: preload)
    found, said = servers(_LIGHT)
    process, _ = start(found, _LIGHT, "tell")
    assert process.pid > 0 and process.wait() == 0  # afresh, forked_role has no main
    assert "could not fork: there can be no more processes" in said[0]
    assert "starting it again" in said[0]


def test_forked_processes_use_tensorflow_and_reverb_each_with_its_own_keys(
    servers, start, tmp_path, monkeypatch
):
    """And leave no file of AutoGraph's behind, which removes them at a normal exit only."""
    generated = tmp_path / "generated"
    generated.mkdir()
    monkeypatch.setenv("TMPDIR", str(generated))
    found, said = servers(_HEAVY)
    _wait(lambda: not found.is_ready(_HEAVY) and "TensorFlow" in found.doing)
    threads = ("1", "9")
    processes = [start(found, _HEAVY, "train", TF_NUM_INTRAOP_THREADS=n) for n in threads]
    assert not found.doing
    ahead = {path.name for path in generated.glob("__autograph*")}
    assert len(ahead) > 5
    told = []
    for process, log in processes:
        assert process.wait() == 0, log.read_text()
        told.append(json.loads(log.read_text().splitlines()[-1]))
    assert [facts["square"] for facts in told] == [9.0, 9.0]
    assert told[1]["threads"] - told[0]["threads"] >= 5, "not each as it was told"
    assert len({*told[0]["keys"], *told[1]["keys"]}) == 8, "two writers with the same keys"
    assert told[0]["random"] != told[1]["random"] and told[0]["dense"] != told[1]["dense"]
    assert not said

    process, log = start(found, _HEAVY, "generate")
    assert process.wait() == 0, log.read_text()
    assert int(log.read_text().split()[-1]) > 0
    assert ahead == {path.name for path in generated.glob("__autograph*")}
    found.close()
    assert not list(generated.glob("__autograph*"))


def test_dead_fork_server_is_started_again_once_then_roles_start_afresh(servers, start, tmp_path):
    found, said = servers(_LIGHT)
    survivor, _ = start(found, _LIGHT, "wait")
    for number, words in enumerate(["starting it again", "roles start afresh from here on"]):
        os.kill(_fork_server(tmp_path), signal.SIGKILL)
        _wait(lambda: not found.is_ready(_LIGHT))  # it is noticed
        process, _ = start(found, _LIGHT, "tell")
        assert process.wait() == (5 if number == 0 else 0)  # afresh, forked_role has no main
        assert len(said) == number + 1 and words in said[number], said
        assert said[number].startswith("WARNING: the fork server died (its log: ")
    assert os.waitid(os.P_PID, survivor.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def test_a_stopped_fork_server_makes_nobody_wait_and_is_replaced(
    servers, start, tmp_path, monkeypatch
):
    monkeypatch.setattr(fork_client, "_STOPPED_SECS", 0.5)
    found, said = servers(_LIGHT)
    _wait(lambda: found.is_ready(_LIGHT))
    stopped = _fork_server(tmp_path)
    os.kill(stopped, signal.SIGSTOP)
    begin_secs = time.monotonic()
    _wait(lambda: state_of(stopped) == "T")
    assert not found.is_ready(_LIGHT) and not said
    os.kill(stopped, signal.SIGCONT)
    _wait(lambda: found.is_ready(_LIGHT))
    os.kill(stopped, signal.SIGSTOP)
    _wait(lambda: not found.is_ready(_LIGHT) and said)
    assert "has been stopped (SIGSTOP) for 0.5 s" in said[0] and "starting it again" in said[0]
    assert time.monotonic() - begin_secs < 10.0  # no fork was asked for
    process, _ = start(found, _LIGHT, "tell")
    assert process.wait() == 5 and len(said) == 1


def test_fork_server_that_dies_while_it_imports_is_noticed(servers, tmp_path):
    found, said = servers(_HEAVY)
    assert not found.is_ready(_HEAVY)
    os.kill(_fork_server(tmp_path), signal.SIGKILL)
    _wait(lambda: found.is_ready(_HEAVY) or said)
    assert "starting it again" in said[0]


def test_module_that_starts_a_thread_at_import_is_left_to_the_roles(
    servers, start, tmp_path, monkeypatch
):
    (tmp_path / "tfdrl_threaded.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(99,), daemon=True).start()\n"
    )
    monkeypatch.setattr(local_processes, "preloaded", lambda *unused: ["tfdrl_threaded", "json"])
    found, said = servers(_LIGHT)
    process, log = start(found, _LIGHT, "tell")
    assert process.wait() == 5
    assert json.loads(log.read_text())["threads"] == 1
    assert "tfdrl_threaded starts a thread when it is imported" in (
        (tmp_path / "fork-server-light.log").read_text()
    )
    assert not said


def test_fork_server_gives_up_when_module_after_module_starts_a_thread(
    servers, start, tmp_path, monkeypatch
):
    (tmp_path / "threaded.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(99,), daemon=True).start()\n"
    )
    modules = ["threaded", *(f"importer_{i}" for i in range(9))]
    for name in modules[1:]:
        (tmp_path / f"{name}.py").write_text("import threaded\n")
    monkeypatch.setattr(local_processes, "preloaded", lambda *unused: modules)
    found, said = servers(_LIGHT)
    process, _ = start(found, _LIGHT, "tell")
    assert process.wait() == 0  # afresh, forked_role has no main
    (words,) = said
    assert "is of no use: importer_1 starts a thread when it is imported" in words
    assert "roles start afresh" in words


def test_python_that_starts_with_threads_is_not_forked(servers, start, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import threading, time\n"
        "threading.Thread(target=time.sleep, args=(99,), daemon=True).start()\n"
    )
    found, said = servers(_LIGHT)
    process, _ = start(found, _LIGHT, "tell")
    assert process.wait() == 0  # afresh, forked_role has no main
    assert "is of no use: Python itself has started with threads" in said[0]


def test_module_that_uses_tensorflow_at_import_is_left_to_the_roles(
    servers, start, tmp_path, monkeypatch
):
    (tmp_path / "uses_tensorflow.py").write_text("import tensorflow as tf\ntf.constant(1.0)\n")
    modules = ["tensorflow", "uses_tensorflow"]
    monkeypatch.setattr(local_processes, "preloaded", lambda *unused: modules)
    found, said = servers(_HEAVY)
    process, log = start(found, _HEAVY, "tell")
    assert process.wait() == 5
    told = json.loads(log.read_text())
    assert told["tensorflow"] and not told["tensorflow_runs"]
    assert "uses_tensorflow starts a thread" in (tmp_path / "fork-server.log").read_text()
    assert not said


def test_restarts_are_forks(servers, tmp_path):
    found, _ = servers(_LIGHT)
    command = [sys.executable, "-m", "forked_role", "tell"]
    replica = Replica(_LIGHT, 0, command, tmp_path / "actor.log")
    limits = Limits(first_backoff_secs=0.05, max_restarts=2)
    supervisor = Supervisor([replica], "learner", limits, lambda words: None, found)
    supervisor.start()
    ending = _wait(supervisor.poll)
    assert ending.reason == "actor 0 died (exit code 5), after 2 restarts within 300 s"
    lines = [line for line in replica.log.read_text().splitlines() if line.startswith("{")]
    assert len({json.loads(line)["pid"] for line in lines}) == 3


def test_what_is_preloaded_are_the_parts_of_the_roles():
    from tfdrl.architectures.apex import Apex
    from tfdrl.architectures.seed import Seed

    roles = {role.name: role for role in Apex(environment=print, agent=print).program().roles}
    learner = preloaded([roles["learner"]], ["my_package", "tfdrl.agents.n_step_dqn"], True)
    assert learner[:4] == ["gymnasium", "tensorflow", "tf_agents", "reverb"]
    assert {"tfdrl.replay.transition_dataset", "tfdrl.learning.session"} < set(learner)
    assert "tfdrl.agents.n_step_dqn" in learner and "my_package" not in learner
    actors = [r for r in Seed(environment=print, agent=print).program().roles if r.name == "actor"]
    light = preloaded(actors, ["tfdrl.agents.v_trace", "tfdrl.environments.registry"], False)
    assert "tfdrl.inference.remote_actor" in light and "tfdrl.environments.registry" in light
    assert not {"tensorflow", "tf_agents", "reverb", "tfdrl.agents.v_trace"} & set(light)


def test_a_launcher_that_dies_takes_the_fork_server_along(tmp_path):
    script = (
        "import os, pathlib, sys, time\n"
        "from tfdrl.launch.local.processes import ForkServers\n"
        "from tfdrl.launch.supervisor import role_environment\n"
        "from tfdrl.topology import Program, Role\n"
        "role = Role('actor', 'forked_role:console', needs_tensorflow=True)\n"
        "logs = pathlib.Path(sys.argv[1])\n"
        "ForkServers(Program('p', (role,)), (), logs, role_environment())\n"
        "print('started', flush=True)\n"
        "time.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    launcher = subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE)
    assert launcher.stdout.readline() == b"started\n"
    pid = _fork_server(tmp_path)
    launcher.kill()
    launcher.wait()
    _wait(lambda: not pathlib.Path(f"/proc/{pid}").exists(), 5.0)
