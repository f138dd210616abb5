"""Mistakes on real command lines: exit code 2, soon, and what would be right."""

import os
import resource
import subprocess
import sys

import pytest
from paths import python_path
from running_roles import APEX

#: Of CPU time, which says how soon it ends on a machine that is not busy; of waiting, at the most.
_LIMIT_SECS, _WAIT_SECS = 5.0, 60.0


def _cpu_secs():
    """Of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(module, *arguments, path=()):
    """Exit code and output of a binary, which must end within the limits."""
    start_secs = _cpu_secs()
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "PYTHONPATH": python_path(*path)},
        capture_output=True,
        text=True,
        timeout=_WAIT_SECS,
    )
    assert _cpu_secs() - start_secs < _LIMIT_SECS
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--gin_bindings=apex.actorz = 3"], "did you mean actors?"),
        (["--gin_bindings=apex.actors = 'two'"], "apex.actors"),
        (["--gin_bindings=apex.actors = 0"], "apex.actors = 0 must be 1 or more"),
        (["--lerner=localhost:1"], "did you mean --learner?"),
        ([], "--learner is missing"),
    ],
    ids=["typo", "type", "value", "flag", "missing"],
)
def test_actor(tmp_path, arguments, words):
    told = [f"--gin_file={APEX}", f"--root_dir={tmp_path}", "--replay=localhost:1"]
    code, output = _run("binaries.actor", *told, *arguments)
    assert code == 2 and words in output, output


def test_train_with_an_unknown_environment(tmp_path):
    wrong = "--gin_bindings=gym_environment.id = 'tfdrl/Chein-v0'"
    run = [f"--gin_file={APEX}", f"--root_dir={tmp_path}/run", wrong]
    code, output = _run("binaries.train", *run)
    assert code == 2 and "there is no environment 'tfdrl/Chein-v0'" in output, output
    assert "tfdrl/Chain-v0" in output
    assert not (tmp_path / "run").exists()


def test_train_without_the_atari_games(tmp_path):
    (tmp_path / "ale_py.py").write_text("raise ImportError('No module named ale_py')\n")
    wrong = [
        "--gin_bindings=apex.environment = @atari_environment",
        "--gin_bindings=atari_environment.id = 'Pong'",
    ]
    run = [f"--gin_file={APEX}", f"--root_dir={tmp_path}/run", *wrong]
    code, output = _run("binaries.train", *run, path=[tmp_path])
    assert code == 2 and 'pip install "tfdrl[atari]"' in output, output


def test_train_in_the_directory_of_another_experiment(tmp_path):
    (tmp_path / "config.gin").write_text("experiment.architecture = @apex()\napex.actors = 9\n")
    code, output = _run("binaries.train", f"--gin_file={APEX}", f"--root_dir={tmp_path}")
    assert code == 2 and "was started with other settings" in output, output
    assert "apex.actors: 9 -> 2" in output
