"""Several runs by one command: real launchers of a program whose roles only behave."""

import contextlib
import io
import os
import signal
import subprocess
import sys
import time

import pytest
from paths import CHECKOUT, python_path

from binaries import train
from tfdrl.api import sweep as several
from tfdrl.api.sweep import is_complete
from tfdrl.api.variants import variants
from tfdrl.errors import ConfigurationError

_GIN = """import tiny_program
experiment.architecture = @tiny()
tiny.learner = 'finish'
"""


@pytest.fixture
def gin_file(tmp_path):
    path = tmp_path / "tiny.gin"
    path.write_text(_GIN)
    return path


def _train(gin_file, *flags):
    """(exit code, what it prints) of `tfdrl-train` in `run` beside the gin file."""
    arguments = ["tfdrl-train", str(gin_file), f"--root_dir={gin_file.parent}/run", *flags]
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = train.main(arguments)
    return code, out.getvalue()


def test_what_is_complete_is_not_trained_again_and_a_failure_keeps_no_other_from_running(gin_file):
    sweep = "--sweep=tiny.replay='die','wait'"
    flags = [sweep, "--max_restarts=0", "--parallel=2"]
    code, out = _train(gin_file, *flags)
    assert code == 1 and "2 runs in" in out
    assert "tiny.replay=die FAILED: replay died (exit code 7)" in out
    assert "tiny.replay=wait: learner finished\n" in out
    assert (gin_file.parent / "run" / "report.html").is_file()
    logs = [gin_file.parent / "run" / f"tiny.replay={x}" / "launcher.log" for x in ("die", "wait")]
    before = [log.stat().st_size for log in logs]
    assert min(before) > 0
    code, out = _train(gin_file, *flags)
    assert code == 1 and "1 of them complete already" in out
    assert logs[0].stat().st_size > before[0] and logs[1].stat().st_size == before[1]


@pytest.mark.parametrize(
    ("ended", "exit_code", "complete"),
    [
        ("solved", 0, True),
        ("told to stop", 0, False),
        ("learner 1 stopped, though the run goes on (exit code 0)", 1, False),
        ("replay died (exit code 7)", 7, False),
        (None, 0, False),
    ],
)
def test_a_run_that_failed_was_stopped_or_was_killed_is_not_complete(
    tmp_path, ended, exit_code, complete
):
    assert not is_complete(tmp_path)
    (tmp_path / "config.gin").write_text("")
    if ended is not None:
        rows = f"ended               {ended}\nexit code           {exit_code}\n"
        (tmp_path / "summary.txt").write_text(rows)
    assert is_complete(tmp_path) == complete


def test_ctrl_c_ends_the_run_under_way_and_trains_no_other(gin_file):
    environment = {**os.environ, "PYTHONPATH": python_path()}
    command = [sys.executable, "-m", "binaries.main", "train", str(gin_file), "--seeds=1,2"]
    command += [f"--root_dir={gin_file.parent}/run", "--gin_bindings=tiny.learner = 'wait'"]
    process = subprocess.Popen(
        command,
        cwd=CHECKOUT,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        deadline_secs = time.monotonic() + 60
        while not (gin_file.parent / "run" / "seed=1" / "ready-learner-0").exists():
            assert time.monotonic() < deadline_secs and process.poll() is None
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert "seed=1: told to stop" in out and "seed=2: not trained" in out


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--sweep=tiny.actorz=1,2"], "tiny has no parameter actorz"),
        (["--seeds=1", "--launcher=slurm"], "runs one program at a time"),
        (["--parallel=2"], "--parallel goes with --seeds or --sweep"),
        (["--seeds="], "--seeds names no seed; write such as --seeds=1,2,3"),
        (["--seeds=1", "--requeue"], "--requeue goes with --launcher=slurm"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_trained(gin_file, flags, words):
    with pytest.raises(ConfigurationError, match=words):
        _train(gin_file, *flags)
    assert not (gin_file.parent / "run").exists()


def test_a_setting_goes_to_the_runs_that_heed_it(tmp_path, monkeypatch):
    found, said = [], []
    monkeypatch.setattr(several, "_train", lambda sweep, *_: found.extend(sweep.variants))
    monkeypatch.setattr(several, "_report", lambda *_: None)
    adam, axes = "adam.learning_rate = 1e-3", ["VTraceAgent.optimizer=@adam(),@rmsprop()"]
    sweep = several.Sweep(["impala/cartpole.gin"], [adam], variants([], axes), tmp_path)
    assert several.run(sweep, said.append) == 0
    assert [adam in variant.bindings for variant in found] == [True, False]
    assert "optimizer=rmsprop: adam.learning_rate has no effect" in said[0]
    with pytest.raises(ConfigurationError, match=r"sgd\.learning_rate has no effect.* and so with"):
        several.run(sweep._replace(gin_bindings=["sgd.learning_rate = 1.0"]), said.append)
