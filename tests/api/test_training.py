"""tfdrl.train: real launchers of a program whose roles only behave, from Python."""

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from paths import CHECKOUT, python_path

import tfdrl
from tfdrl.api import training
from tfdrl.errors import RunFailedError
from tfdrl.launch import settings, supervisor

_GIN = "import tiny_program\nexperiment.architecture = @tiny()\n"
_SERVING = {"tiny.learner": "serve", "tiny.learner_serves": True}


@pytest.fixture
def start(tmp_path):
    """`tfdrl.train` of the tiny program in `tmp_path/run`."""
    gin_file = tmp_path / "tiny.gin"
    gin_file.write_text(_GIN)

    def call(bindings=(), on_progress=None, root_dir=tmp_path / "run", **settings):
        return tfdrl.train(gin_file, bindings, root_dir, on_progress, quiet=True, **settings)

    return call


def _running(directory):
    """Processes whose command line names `directory`."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            is_zombie = (path / "stat").read_text().rpartition(")")[2].split()[0] == "Z"
            if str(directory).encode() in (path / "cmdline").read_bytes() and not is_zombie:
                found.append(int(path.name))
    return found


def test_a_run_from_a_thread_tells_how_it_stands_until_it_is_told_to_stop(
    start, tmp_path, monkeypatch
):
    monkeypatch.setenv("HOME", "/proc")  # which nobody can write to
    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
    snapshots, refusals, runs = [], [], []

    def look(snapshot):
        snapshots.append(snapshot)
        if snapshot.learner_steps < 5:
            return None
        with pytest.raises(tfdrl.ConfigurationError, match="in use by another launcher: process"):
            start()
        refusals.append(True)
        return "stop"

    thread = threading.Thread(target=lambda: runs.append(start(_SERVING, look)))
    thread.start()
    thread.join(60)
    assert not thread.is_alive() and refusals
    (run,) = runs
    assert run.ended == "told to stop" and run.root_dir == tmp_path / "run"
    assert snapshots[-1].metrics["learner/waiting_share"] == 1.0
    assert 0 < snapshots[-1].elapsed_secs < 60 and snapshots[-1].mean_return is None
    assert run.config["tiny.learner_serves"] is True and run.best_return is None
    assert [*run.evaluations.mean] == [] and tfdrl.load(tmp_path / "run").ended == run.ended
    assert not _running(tmp_path)
    now = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGCHLD)]
    assert now == handlers and os.getcwd() == str(pathlib.Path.cwd())


def test_a_callback_that_raises_ends_the_run_and_its_exception_is_raised(start, tmp_path):
    def fail(snapshot):
        raise ZeroDivisionError("of the user's")

    with pytest.raises(ZeroDivisionError, match="of the user's"):
        start(_SERVING, fail)
    assert tfdrl.load(tmp_path / "run").ended == "told to stop"
    assert not _running(tmp_path)


def test_ctrl_c_ends_the_run_in_order(start, tmp_path):
    main = threading.main_thread()
    if threading.current_thread() is not main:
        pytest.skip("signals reach the main thread alone, and this is another")

    def interrupt_soon(snapshot):
        if all((tmp_path / "run" / f"ready-{role}-0").exists() for role in ("learner", "replay")):
            threading.Timer(0.3, signal.pthread_kill, (main.ident, signal.SIGINT)).start()

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            start({}, interrupt_soon)
    finally:
        signal.signal(signal.SIGINT, before)
    assert tfdrl.load(tmp_path / "run").ended == "told to stop"
    assert (tmp_path / "run" / "stopped").read_text().split()[-2:] == ["learner-0", "replay-0"]


def test_a_run_ends_with_the_program_that_has_started_it(tmp_path):
    (tmp_path / "tiny.gin").write_text(_GIN)
    program = (
        "import os, signal, tfdrl\n"
        f"tfdrl.train({str(tmp_path / 'tiny.gin')!r}, root_dir={str(tmp_path / 'run')!r},\n"
        "    on_progress=lambda snapshot: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    environment = {**os.environ, "PYTHONPATH": python_path()}
    done = subprocess.run([sys.executable, "-c", program], env=environment, timeout=60)
    assert done.returncode == -signal.SIGKILL
    deadline_secs = time.monotonic() + 20
    while _running(tmp_path):
        assert time.monotonic() < deadline_secs
        time.sleep(0.1)
    assert tfdrl.load(tmp_path / "run").ended == "told to stop"


def test_a_role_that_dies_is_an_error_with_its_last_lines(start, tmp_path):
    with pytest.raises(tfdrl.RoleFailedError, match=r"learner died .exit code 7.") as raised:
        start({"tiny.learner": "die"}, max_restarts=0)
    assert raised.value.last_lines.splitlines()[-1] == "line 19 of learner"
    assert "line 19 of learner" in str(raised.value)
    assert raised.value.root_dir == str(tmp_path / "run")


@pytest.mark.parametrize(
    "exit_code, details, error",
    [
        (2, "", tfdrl.ConfigurationError),
        (3, "loss nan", tfdrl.TrainingDivergedError),
        (1, "a line", tfdrl.RoleFailedError),
        (1, "", RunFailedError),
    ],
)
def test_each_end_that_is_a_failure_has_its_error(exit_code, details, error):
    with pytest.raises(error, match="why it ended") as raised:
        training.raise_failure(supervisor.RunEnd(exit_code, "why it ended", details), "runs/a")
    assert type(raised.value) is error and details in str(raised.value)
    training.raise_failure(supervisor.RunEnd(0, "it is solved"), "runs/a")


def test_wrong_settings_are_the_sentence_of_the_command_line(start, tmp_path):
    binding = "tiny.actorz = 3"
    with pytest.raises(tfdrl.ConfigurationError) as raised:
        start([binding])
    done = subprocess.run(
        [sys.executable, "-m", "binaries.train", f"--gin_file={tmp_path}/tiny.gin"]
        + [f"--gin_bindings={binding}", f"--root_dir={tmp_path}/run"],
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": python_path()},
        capture_output=True,
        text=True,
    )
    assert f"tfdrl train: {raised.value}\n" == done.stderr
    assert "did you mean actor or actors?" in done.stderr


@pytest.mark.parametrize(
    "arguments, words",
    [
        ({"on_progress": 3}, "on_progress=3 must be a function"),
        ({"bindings": "apex.actors = 3"}, "must be a list of lines"),
        ({"bindings": None}, "bindings=None must be a list of lines"),
        ({"max_restarts": -1}, "max_restarts=-1 must be a whole number of at least 0"),
        ({"max_restarts": "3"}, "max_restarts='3' must be a whole number"),
        ({"max_restarts": 2.5}, "max_restarts=2.5 must be a whole number"),
        ({"stuck_after_secs": float("nan")}, "stuck_after_secs=nan must be a finite number of at"),
        ({"bindings": {"apex.agent": print}}, "apex.agent = .* cannot be written in gin"),
        ({"on_progress": lambda snapshot: True}, 'None to go on, or "stop", not True'),
    ],
)
def test_wrong_arguments_are_refused(start, arguments, words):
    with pytest.raises(tfdrl.ConfigurationError, match=words):
        start(**arguments)


def test_numbers_of_numpy_are_numbers():
    given = (
        settings.whole_number("a", np.int64(3), 0),
        settings.finite_number("b", np.float32(2), 1),
    )
    assert json.dumps(given) == "[3, 2.0]"
    with pytest.raises(tfdrl.ConfigurationError, match="b=True must be a finite number"):
        settings.finite_number("b", True, 1)


def test_a_directory_that_is_no_run_or_of_a_newer_version_is_refused(start, tmp_path):
    with pytest.raises(tfdrl.ConfigurationError, match="is no run: it has no config"):
        tfdrl.load(tmp_path)
    run = tmp_path / "run"
    run.mkdir()
    (run / "config.gin").write_text("")
    (run / "version.txt").write_text("99.1.0\n")
    for use in (start, lambda: tfdrl.load(run)):
        with pytest.raises(tfdrl.ConfigurationError, match=r"is the run of tfdrl 99.1.0, and this"):
            use()
    (run / "version.txt").write_text(f"{tfdrl.__version__}.post7\n")
    tfdrl.load(run)


def test_what_the_package_names_is_there_and_in_its_stub():
    stub = (CHECKOUT / "tfdrl" / "__init__.pyi").read_text()
    for name in tfdrl.__all__:
        assert name in dir(tfdrl) and f" import {name} as {name}\n" in stub
        assert getattr(tfdrl, name).__name__ == name
    assert len(tfdrl.__all__) == stub.count(" import ")
    assert issubclass(tfdrl.RoleFailedError, RunFailedError)
    with pytest.raises(AttributeError, match="no attribute 'trane'"):
        _ = tfdrl.trane
