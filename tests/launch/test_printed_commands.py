"""Printed commands are run as printed, by a shell that knows nothing of this environment."""

import os
import pathlib
import subprocess
import sys
import sysconfig

import pytest
from paths import python_path

from tfdrl.launch import printed_commands, summary

_CHECKOUT = pathlib.Path(__file__).resolve().parents[2]
_SCRIPTS = pathlib.Path(sysconfig.get_path("scripts"))
_CLEAN_PATH = "/usr/bin:/bin"


def in_a_clean_shell(command, directory, path=_CLEAN_PATH):
    return subprocess.run(
        ["env", "-i", f"PATH={path}", "sh", "-c", command],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """An environment in the working directory, with a program `tool`; its PATH is a clean one."""
    scripts = tmp_path / ".venv" / "bin"
    scripts.mkdir(parents=True)
    (scripts / "tool").write_text("#!/bin/sh\necho ran with $*\n")
    (scripts / "tool").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(scripts))
    monkeypatch.setenv("PATH", _CLEAN_PATH)
    return scripts


def test_a_program_that_is_not_on_path_is_shown_with_its_path(environment, tmp_path):
    shown = printed_commands.program("tool")
    assert shown == ".venv/bin/tool"
    assert in_a_clean_shell(f"{shown} --help", tmp_path).stdout == "ran with --help\n"


@pytest.mark.parametrize("directory", [".venv/bin", "a/b/c/d/e/f/g/h/i/j/k/l/m/n/o/p/q/r/s/t/u"])
def test_it_works_in_any_directory(environment, tmp_path, monkeypatch, directory):
    (tmp_path / directory).mkdir(parents=True, exist_ok=True)
    monkeypatch.chdir(tmp_path / directory)
    done = in_a_clean_shell(printed_commands.program("tool"), tmp_path / directory)
    assert done.stdout == "ran with\n"


def test_a_program_on_path_is_shown_by_its_name(environment, tmp_path, monkeypatch):
    path = f"{environment}:{_CLEAN_PATH}"
    monkeypatch.setenv("PATH", path)
    assert printed_commands.program("tool") == "tool"
    assert in_a_clean_shell("tool", tmp_path, path).stdout == "ran with\n"


def test_another_program_of_that_name_does_not_count(environment, tmp_path, monkeypatch):
    other = tmp_path / "other"
    other.mkdir()
    (other / "tool").write_text("#!/bin/sh\necho the wrong one\n")
    (other / "tool").chmod(0o755)
    monkeypatch.setenv("PATH", f"{other}:{_CLEAN_PATH}")
    assert printed_commands.program("tool") == ".venv/bin/tool"


def test_what_is_not_there_is_shown_by_its_name(environment):
    assert printed_commands.program("nothing") == "nothing"


@pytest.mark.skipif(not (_SCRIPTS / "tensorboard").exists(), reason="needs TensorBoard")
def test_tensorboard_s_command_runs(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", _CLEAN_PATH)
    monkeypatch.chdir(_CHECKOUT)
    program, *arguments = summary.tensorboard(tmp_path)
    assert arguments == ["--logdir", str(tmp_path / "tensorboard")]
    done = in_a_clean_shell(f"{program} --version", _CHECKOUT)
    assert done.returncode == 0, done.stderr


def _continue_line(page):
    (line,) = (line for line in page.splitlines() if line.startswith("continue"))
    return line.removeprefix("continue").strip()


def test_the_command_that_continues_a_run_does(tmp_path):
    """The run of a program whose roles only behave; PATH does not lead to its Python."""
    own = {"PATH": _CLEAN_PATH, "PYTHONPATH": python_path()}
    (tmp_path / "tiny.gin").write_text("import tiny_program\nexperiment.architecture = @tiny()\n")
    arguments = ["--gin_file=tiny.gin", "--gin_bindings=tiny.learner = 'finish'", "--root_dir=a b"]
    first = subprocess.run(
        [sys.executable, "-m", "binaries.train", *arguments],
        cwd=tmp_path,
        env=own,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert first.returncode == 0, first.stderr
    command = _continue_line((tmp_path / "a b" / "summary.txt").read_text())
    os.utime(tmp_path / "a b" / "summary.txt", (0, 0))
    done = in_a_clean_shell(f"export PYTHONPATH={own['PYTHONPATH']}; {command}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "a b" / "summary.txt").stat().st_mtime > 0


def test_tensorboard_is_run_as_a_module_where_its_script_is_not_found(tmp_path, monkeypatch):
    monkeypatch.setattr(printed_commands.sysconfig, "get_path", lambda name: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    command = summary.tensorboard(tmp_path)
    assert command[1:3] == ["-m", "tensorboard.main"]
