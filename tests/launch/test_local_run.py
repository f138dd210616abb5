"""Whole local runs of a program whose roles only behave, through the real binaries."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import fake_nvidia_smi
import preloaded
import pytest
from paths import python_path
from running_roles import small_disk

import tfdrl
from tfdrl.errors import ConfigurationError, UnavailableError
from tfdrl.launch.process import arguments_of
from tfdrl.launch.tools import runs
from tfdrl.rpc.run_client import TrainingClient
from tfdrl.rpc.security import Security
from tfdrl.topology import Address
from tfdrl.tracking import tracker

_REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
_SECOND_LEARNER = ("--role=learner", "--task=1", "--replay=a:1", "--gin_bindings=tiny.learners = 2")
_GIN = "import tiny_program\nexperiment.architecture = @tiny()\n"


@pytest.fixture
def environment():
    return {**os.environ, "PYTHONPATH": python_path()}


@pytest.fixture
def train(tmp_path, environment):
    """Starts tfdrl-train on `tmp_path/run`; kills everything at the end of the test.

    Unless it is started `afresh`, or something is to be done `before`, it is forked from a process
    that has imported everything.
    """
    (tmp_path / "tiny.gin").write_text(_GIN)
    started = []

    def start(*arguments, before=None, afresh=False, **bindings):
        arguments = [
            f"--gin_file={tmp_path}/tiny.gin",
            *(f"--gin_bindings=tiny.{name} = {value!r}" for name, value in bindings.items()),
            *(f"--root_dir={tmp_path}/run", *arguments),
        ]
        if afresh or before:
            process = subprocess.Popen(
                [sys.executable, "-m", "binaries.train", *arguments],
                cwd=tmp_path,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                preexec_fn=before or _as_from_a_terminal,
            )
        else:
            process = preloaded.PipedProcess(
                *("binaries.train", arguments),
                environment=environment,
                directory=tmp_path,
                tensorflow=False,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
    for pid in _processes(tmp_path):
        os.kill(pid, signal.SIGKILL)


def _as_from_a_terminal():
    """Also where the tests themselves were started by nohup, or in the background."""
    for number in (signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def _processes(directory):
    """Processes whose command line names `directory`."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            if str(directory).encode() in (path / "cmdline").read_bytes() and state != "Z":
                found.append(int(path.name))
        except OSError:
            continue
    return found


def _wait_until_up(root_dir, names=("replay-0", "learner-0", "actor-0", "actor-1")):
    _wait(lambda: all((root_dir / f"ready-{name}").exists() for name in names))


def _wait_until_gone(directory, limit_secs, find=None):
    deadline = time.monotonic() + limit_secs
    while left := (find or _processes)(directory):
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.05)


def _wait(condition, limit_secs=20.0):
    deadline = time.monotonic() + limit_secs
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_ctrl_c_stops_everything_in_order_and_is_a_success(train, tmp_path):
    process = train(afresh=True, actor="breed")  # its actors have children
    _wait_until_up(tmp_path / "run")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 0, output
    assert "stopping; press Ctrl-C again to kill" in output
    assert "told to stop" in (tmp_path / "run" / "summary.txt").read_text()
    stopped = (tmp_path / "run" / "stopped").read_text().split()
    assert sorted(stopped[:2]) == ["actor-0", "actor-1"] and stopped[2:] == [
        "learner-0",
        "replay-0",
    ]
    _wait_until_gone(tmp_path, 5.0)


def test_only_who_may_read_the_token_of_a_run_talks_to_its_learner(train, tmp_path):
    process = train(afresh=True, learner="serve", learner_serves=True)
    root_dir = tmp_path / "run"
    _wait_until_up(root_dir, ["replay-0", "actor-0", "learner-0"])
    path = root_dir / "token"
    assert path.stat().st_mode & 0o777 == 0o600
    token = path.read_text()
    assert len(token) == 64
    pids = _processes(tmp_path)
    commands = [pathlib.Path(f"/proc/{pid}/cmdline").read_bytes().decode() for pid in pids]
    learner = next(
        arguments for pid in pids if "--role=learner" in (arguments := arguments_of(pid))
    )
    listen = next(a.partition("=")[2] for a in learner if a.startswith("--listen="))
    address = Address.parse(listen)
    sender = {"experiment": "", "role": "launcher", "task": 0, "run_id": 1}
    stranger = TrainingClient(address, **sender)
    ours = TrainingClient(address, **sender, security=Security(token=token))

    def serves():
        with contextlib.suppress(UnavailableError):
            return ours.status()

    _wait(serves)
    for call in (stranger.status, stranger.report, lambda: stranger.parameters(-1)):
        with pytest.raises(ConfigurationError, match="the token is missing or wrong"):
            call()
    stranger.close()
    ours.close()
    found = [*commands, *(pathlib.Path(f"/proc/{pid}/environ").read_text() for pid in pids)]
    files = [p for p in root_dir.rglob("*") if p.is_file() and p != path]
    found += [p.read_bytes().decode(errors="replace") for p in files]
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=20)
    assert files and not [text for text in (*found, output) if token in text]
    assert process.returncode == 0 and not path.exists()


def test_what_a_role_says_to_its_user_is_said_on_the_console(train, tmp_path):
    process = train(replay="say")
    for line in process.stdout:
        if "replay: somebody was here" in line:
            break
    else:
        raise AssertionError("nothing was said")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=20)
    assert process.returncode == 0


def test_output_that_nobody_reads_ends_no_run(train, tmp_path):
    process = train(afresh=True)
    assert process.stdout.readline().startswith("tiny in ")
    process.stdout.close()
    _wait_until_up(tmp_path / "run")
    process.send_signal(signal.SIGHUP)  # as a terminal that is closed sends
    assert process.wait(timeout=30) == 0
    assert "told to stop" in (tmp_path / "run" / "summary.txt").read_text()
    assert len((tmp_path / "run" / "stopped").read_text().split()) == 4


def test_nohup_survives_the_end_of_its_terminal(train, tmp_path):
    process = train(before=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    _wait_until_up(tmp_path / "run")
    process.send_signal(signal.SIGHUP)
    time.sleep(1.0)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 0


@pytest.mark.parametrize(
    "before",
    [lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN), lambda: os.close(1)],
    ids=["children are ignored", "no standard output"],
)
def test_what_a_launcher_may_have_inherited(train, tmp_path, before):
    process = train(before=before, learner="finish")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert "Traceback" not in output
    assert "learner finished" in (tmp_path / "run" / "summary.txt").read_text()


def test_a_continued_run_that_is_killed_is_not_what_its_earlier_start_was(train, tmp_path):
    root_dir = tmp_path / "run"
    first = train(learner="finish")
    output, _ = first.communicate(timeout=30)
    assert first.returncode == 0 and tfdrl.load(root_dir).ended == "learner finished", output
    for trace in root_dir.glob("ready-*"):
        trace.unlink()
    second = train("--allow_config_change")
    _wait_until_up(root_dir)
    assert tfdrl.load(root_dir).ended == ""
    second.kill()
    second.communicate(timeout=10)
    (line,) = runs.find(root_dir)
    assert line.state == "no end is written" and tfdrl.load(root_dir).ended == ""
    assert tracker.end_of(root_dir).reason == ""
    assert "learner finished" in (root_dir / "summary.txt.1").read_text()
    _wait_until_gone(tmp_path, 20.0)


def test_second_ctrl_c_kills_at_once(train, tmp_path):
    process = train(actor="hang")
    _wait_until_up(tmp_path / "run")
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=10)
    assert process.returncode == 1, output
    assert time.monotonic() - start < 5.0
    assert not _processes(tmp_path)


def test_killed_launcher_leaves_no_role_behind(train, tmp_path):
    process = train(afresh=True, actor="breed")
    _wait_until_up(tmp_path / "run")
    assert len(_processes(tmp_path)) >= 5
    process.kill()
    _wait_until_gone(tmp_path, 10.0)


def _roles(directory):
    found = []
    for pid in _processes(directory):
        with contextlib.suppress(OSError):  # it may have ended
            if b"--role=" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


def test_killed_launcher_leaves_no_deaf_role_behind(train, tmp_path):
    process = train(actor="hang", actors=1)
    _wait_until_up(tmp_path / "run", ("replay-0", "learner-0", "actor-0"))
    process.kill()
    _wait_until_gone(tmp_path, 15.0)


@pytest.mark.parametrize(
    ("bindings", "exit_code", "words"),
    [
        ({"replay": "die"}, 7, "replay died (exit code 7)"),
        ({"replay": "kill_self", "learner": "kill_self"}, 1, ": died (killed by SIGKILL)"),
        ({"learner": "diverge"}, 3, "the loss was not finite 10 times in a row"),
        ({"actor": "misconfigured"}, 2, "tfdrl actor: tiny.actor is wrong"),
        ({"learner": "finish"}, 0, "learner finished"),
        ({"learner": "finish", "learners": 2}, 0, "learner finished"),
        ({"learner": "other_dies", "learners": 2}, 1, "learner 1 died (killed by SIGKILL)"),
    ],
)
def test_how_a_run_ends(train, tmp_path, bindings, exit_code, words):
    process = train(**bindings)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == exit_code, output
    assert words in output
    if exit_code == 7:
        lines = [line.strip() for line in output.splitlines() if " of replay" in line]
        assert lines == [f"line {i} of replay" for i in range(5, 20)]
    assert not _processes(tmp_path)


def test_roles_get_the_addresses_that_were_announced(train, tmp_path):
    output, _ = train(learner="finish").communicate(timeout=30)
    address = output.split("1 replay at ")[1].split()[0]
    assert (tmp_path / "run" / "ready-actor-0").read_text() == f"replay={address}"
    assert (tmp_path / "run" / "ready-replay-0").read_text() == ""


def test_several_learners_get_one_list_of_addresses_and_end_together(train, tmp_path, environment):
    there = fake_nvidia_smi.install(tmp_path / "bin", 143000, 143000)
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    environment["PATH"] = f"{there}:{environment['PATH']}"
    process = train(learners=2, learner_serves=True, gpu_roles=("learner",))
    names = ("replay-0", "learner-0", "learner-1", "actor-0", "actor-1")
    _wait_until_up(tmp_path / "run", names)
    told = [(tmp_path / "run" / f"ready-learner-{task}").read_text() for task in (0, 1)]
    assert told[0] == told[1]
    cluster = told[0].split("cluster=")[1].split(",")
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=10)
    listening = output.split("2 learner at ")[1].splitlines()[0].split(", ")
    assert len({*cluster, *listening}) == 4
    seen = [(tmp_path / "run" / f"gpus-{name}").read_text() for name in names]
    assert seen == ["", "GPU-0a1b2", "GPU-1a1b2", "", ""]
    assert "GPU 0 (NVIDIA H200), 1 (NVIDIA H200): learner" in output
    stopped = (tmp_path / "run" / "stopped").read_text().split()
    assert sorted(stopped[2:4]) == ["learner-0", "learner-1"] and stopped[4] == "replay-0"


def test_second_launcher_is_refused_and_told_who_holds_the_directory(train, tmp_path):
    first = train()
    _wait_until_up(tmp_path / "run")
    second = train()
    output, _ = second.communicate(timeout=20)
    assert second.returncode == 2
    assert f"in use by another launcher: process {first.pid} on " in output
    first.kill()
    _wait_until_gone(tmp_path, 15.0)
    third = train()
    _wait(lambda: len(_roles(tmp_path)) == 4)  # the lock of the dead is no obstacle
    third.send_signal(signal.SIGTERM)
    assert third.wait(timeout=15) == 0


def test_a_directory_that_is_removed_ends_its_run_and_is_nobody_elses_meanwhile(train, tmp_path):
    first = train()
    _wait_until_up(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "gone")
    second = train()
    assert second.wait(timeout=20) == 2
    assert "in use by another launcher" in second.stdout.read()
    assert first.wait(timeout=20) == 1
    output = first.stdout.read()
    assert f"{tmp_path}/run was removed, or replaced, meanwhile; stopping the other" in output
    third = train(learner="finish")
    assert third.wait(timeout=20) == 0


def test_a_full_disk_is_said_where_somebody_reads_it(train, tmp_path):
    with small_disk(tmp_path / "run", size_megabytes=4) as permitted:
        if not permitted:
            pytest.skip("mounting a small file system is not permitted")
        process = train()
        _wait_until_up(tmp_path / "run")
        filler = tmp_path / "run" / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(10_000))
        lines = iter(process.stdout.readline, "")
        assert any(f"the disk of {tmp_path}/run is full: checkpoints" in line for line in lines)
        filler.unlink()
        assert any("run can be written to again" in line for line in lines)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0


def test_a_first_start_that_is_refused_may_be_corrected(train, tmp_path):
    assert train(actor="misconfigured").wait(timeout=20) == 2
    corrected = train(learner="finish", actors=1)
    assert corrected.wait(timeout=20) == 0, corrected.stdout.read()
    assert train(actor="misconfigured").wait(timeout=20) == 2  # that run has begun
    assert "tiny.actors = 1" in (tmp_path / "run" / "config.gin").read_text()


def test_changed_settings_are_refused_unless_allowed(train, tmp_path):
    assert train(learner="finish").wait(timeout=30) == 0
    refused = train(learner="finish", actors=3)
    output, _ = refused.communicate(timeout=20)
    assert refused.returncode == 2
    assert "tiny.actors: (not set) -> 3" in output and "--allow_config_change" in output
    for path in (tmp_path / "run").glob("ready-*"):
        path.unlink()
    allowed = train("--allow_config_change", learner="finish", actors=3)
    assert allowed.wait(timeout=30) == 0
    assert "tiny.actors = 3" in (tmp_path / "run" / "config.gin").read_text()
    assert "tiny.actors" not in (tmp_path / "run" / "config.gin.1").read_text()


@pytest.mark.parametrize(
    ("learner", "words"),
    [
        ("serve", "no learner step and no environment frame (waiting: learner 100 %), for 5 s"),
        ("wait", "the learner has not answered since its start, for 5 s"),
    ],
)
def test_stuck_learner_ends_the_run(train, tmp_path, learner, words):
    process = train("--stuck_after_secs=5", learner=learner, learner_serves=True)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 1, output
    assert words in output, output
    assert not _processes(tmp_path)


def test_a_launcher_that_was_suspended_asks_again_before_it_judges(train, tmp_path):
    process = train("--stuck_after_secs=6", learner="serve", learner_serves=True)
    _wait_until_up(tmp_path / "run", ("learner-0",))
    process.send_signal(signal.SIGSTOP)
    time.sleep(7.0)
    process.send_signal(signal.SIGCONT)
    time.sleep(2.0)
    assert process.poll() is None, process.communicate()[0]
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 1 and "for 6 s" in output, output


@pytest.mark.parametrize(
    ("binding", "words"),
    [
        ("tiny.actorz = 3", "did you mean actor or actors?"),
        ("tiny.actors = 1000000", "1000000 actor need 20,0"),
        ("experiment.seed = 2000000001", "must be a whole number from 0 to 2,000,000,000"),
        ("experiment.seed = 99999999999999999999", "does not fit into 64 bits"),
        (
            "experiment.architecture = @tiny_without_environment()",
            "there is no environment NoSuchGame-v0",
        ),
    ],
)
def test_mistakes_are_found_before_any_process_starts(train, tmp_path, binding, words):
    start = time.monotonic()
    process = train(f"--gin_bindings={binding}")
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 2 and words in output, output
    assert time.monotonic() - start < 5.0
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--role=actor"], "--replay is missing; actor talks to replay"),
        (["--role=actor", "--replay=nowhere"], "unknown flag --replay"),
        (["--role=actor", "--replya=a:1"], "did you mean --replay?"),
        (["--role=actor", "--task=2", "--replay=a:1"], "--task=2"),
        (["--role=actr", "--replay=a:1"], "its roles are: replay, learner, actor"),
        (["--role=replay", "--listen=0.0.0.0:8000"], "add --insecure_network"),
        (["--role=learner", "--replay=a:1", "--listen=127.0.0.1:8000"], "learner serves nothing"),
        (["--role=actor", "--replay=a:1,b:2"], "has 2 addresses"),
        ([], "--role is missing"),
        (["--role=actor", "--replay=a:1", "--cluster=a:1,b:1"], "actor processes do not talk to"),
        (["--role=learner", "--replay=a:1", "--cluster=a:1,b:1"], "one learner process only"),
        ([*_SECOND_LEARNER], "--cluster is missing; the 2 learner processes talk to each other"),
        ([*_SECOND_LEARNER, "--cluster=a:1,b:1"], "a:1, b:1 can be reached from other machines"),
    ],
)
def test_role_names_the_flag_that_is_wrong(tmp_path, environment, arguments, words):
    (tmp_path / "tiny.gin").write_text(_GIN)
    command = [sys.executable, "-m", "tfdrl.launch.role", f"--gin_file={tmp_path}/tiny.gin"]
    done = subprocess.run(
        [*command, f"--root_dir={tmp_path}", *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 2, done.stderr
    assert words in done.stderr


@pytest.mark.parametrize("name", ["lr=[1e-3]", "a*b", "what?"])
def test_names_that_checkpoints_could_not_be_read_from_are_refused(train, tmp_path, name):
    process = train(f"--root_dir={tmp_path}/{name}")
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 2 and "could not read checkpoints back from" in output, output
    assert not (tmp_path / name).exists()


def test_an_environment_that_changes_the_directory_changes_nobody_elses(train, tmp_path):
    (tmp_path / "else").mkdir()
    binding = "--gin_bindings=experiment.architecture = @tiny_that_moves()"
    move = f"--gin_bindings=tiny_that_moves.to = '{tmp_path}/else'"
    finish = "--gin_bindings=tiny_that_moves.learner = 'finish'"
    process = train(binding, move, finish, "--root_dir=relative")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0, output
    assert (tmp_path / "relative" / "config.gin").exists(), output
    assert not list((tmp_path / "else").iterdir())
