"""A role's process on its own: signals, exit codes, nothing that keeps it alive."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from paths import python_path

from tfdrl.runtime import locks

_REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def start(tmp_path):
    """Starts one role as its binary does, and waits until its function runs."""
    (tmp_path / "tiny.gin").write_text("import tiny_program\nexperiment.architecture = @tiny()\n")
    started = []

    def start_role(module, role, *arguments, root_dir=tmp_path):
        command = [sys.executable, "-m", module, f"--gin_file={tmp_path}/tiny.gin", *arguments]
        process = subprocess.Popen(
            [*command, f"--root_dir={root_dir}"],
            env={**os.environ, "PYTHONPATH": python_path()},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        deadline = time.monotonic() + 20
        while not (root_dir / f"ready-{role}-0").exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return process

    yield start_role
    for process in started:
        process.kill()
        process.wait()


def test_root_dir_is_made_and_one_that_cannot_be_is_a_mistake(start, tmp_path):
    flags = ("--gin_bindings=tiny.replay = 'thread'",)
    new = tmp_path / "a" / "b"
    process = start("binaries.replay_server", "replay", *flags, root_dir=new)
    assert process.wait(timeout=20) == 0 and new.is_dir()
    process = start(
        "binaries.replay_server", "replay", *flags, root_dir=tmp_path / "tiny.gin" / "c"
    )
    output, _ = process.communicate(timeout=20)
    assert process.returncode == 2 and "tiny.gin/c cannot be made: Not a directory" in output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_first_signal_lets_the_role_finish(start, tmp_path, number):
    process = start("binaries.actor", "actor", "--replay", "localhost:8000")
    process.send_signal(number)
    assert process.wait(timeout=5) == 0
    assert (tmp_path / "stopped").read_text() == "actor-0\n"
    assert (tmp_path / "ready-actor-0").read_text() == "replay=localhost:8000"


def test_every_role_gives_its_free_memory_back(start):
    process = start("binaries.actor", "actor", "--replay", "localhost:8000")
    threads = pathlib.Path(f"/proc/{process.pid}/task").glob("*/comm")
    assert "memory" in {path.read_text().strip() for path in threads}


def test_signal_before_the_end_of_the_run_has_the_exit_code_that_is_asked_for(start, tmp_path):
    flags = ("--replay=localhost:8000", "--stopped_exit_code=143")
    process = start("binaries.actor", "actor", *flags)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 143
    assert (tmp_path / "stopped").read_text() == "actor-0\n"


def test_role_that_ends_by_itself_exits_with_0_whatever_a_signal_would_give(start):
    flags = ("--gin_bindings=tiny.replay = 'thread'", "--stopped_exit_code=143")
    assert start("binaries.replay_server", "replay", *flags).wait(timeout=5) == 0


def test_second_signal_ends_the_process_at_once(start):
    process = start(
        "binaries.actor", "actor", "--replay=localhost:8000", "--gin_bindings=tiny.actor = 'hang'"
    )
    process.send_signal(signal.SIGTERM)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=2) == 1


def test_signal_is_noticed_while_native_code_blocks_the_main_thread(start):
    process = start(
        "binaries.actor", "actor", "--replay=localhost:8000", "--gin_bindings=tiny.actor = 'native'"
    )
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=5) == 0


def test_thread_that_never_ends_does_not_keep_the_process(start):
    process = start("binaries.replay_server", "replay", "--gin_bindings=tiny.replay = 'thread'")
    assert process.wait(timeout=5) == 0


def test_terminated_child_of_a_role_does_not_stop_the_role(start):
    process = start("binaries.replay_server", "replay", "--gin_bindings=tiny.replay = 'fork'")
    output, _ = process.communicate(timeout=10)
    assert "child ended with -15; stop is set: False" in output


@pytest.mark.parametrize(
    ("behaviour", "exit_code", "words"),
    [
        ("raise", 1, "RuntimeError: a fault of the role"),
        ("diverge", 3, "tfdrl replay: the loss was not finite 10 times in a row\n"),
        ("misconfigured", 2, "tfdrl replay: tiny.actor is wrong\n"),
    ],
)
def test_exit_code_and_words_of_a_failure(start, behaviour, exit_code, words):
    binding = f"--gin_bindings=tiny.replay = {behaviour!r}"
    output, _ = (process := start("binaries.replay_server", "replay", binding)).communicate()
    assert process.returncode == exit_code
    assert words in output
    assert ("Traceback" in output) == (exit_code == 1)


def test_chief_that_was_started_alone_keeps_and_compares_its_settings(start, tmp_path):
    """As the launcher does; others leave nothing that is read by them."""

    def run(root_dir, *more):
        flags = ("--replay=localhost:8000", "--gin_bindings=tiny.learner = 'thread'", *more)
        process = start("binaries.learner", "learner", *flags, root_dir=root_dir)
        return process.communicate(timeout=20)[0], process.returncode

    new = tmp_path / "new"
    assert run(new)[1] == 0
    kept = (new / "config.gin").read_text()
    assert "tiny.learner = 'thread'" in kept
    (new / "ready-learner-0").unlink()
    changed = "--gin_bindings=tiny.actors = 5"
    output, code = run(new, changed)
    assert code == 2 and "tiny.actors: (not set) -> 5" in output
    assert not (new / "ready-learner-0").exists() and (new / "config.gin").read_text() == kept
    with locks.lock(new, "learner"):  # of a learner that is at work
        output, code = run(new, changed, "--allow_config_change")
        assert code == 2 and f"in use by another learner: process {os.getpid()} on" in output
        assert (new / "config.gin").read_text() == kept
    assert run(new, changed, "--allow_config_change")[1] == 0
    assert "tiny.actors = 5" in (new / "config.gin").read_text()
    assert (new / "config.gin.1").read_text() == kept
    flags = ("--gin_bindings=tiny.replay = 'thread'",)
    assert start("binaries.replay_server", "replay", *flags).wait(timeout=20) == 0
    assert not (tmp_path / "config.gin").exists()
    assert not list(new.glob("*.partial"))
