"""How every binary ends."""

import pathlib
import subprocess
import sys

import pytest

from binaries import benchmark, compare, health
from tfdrl.errors import ConfigurationError, DivergedError
from tfdrl.launch import command_line

_CHECKOUT = pathlib.Path(__file__).resolve().parents[2]


def raising(error):
    def main(argv):
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (ConfigurationError("a name\n  In call to configurable x"), 2, "tfdrl x: a name\n"),
        (DivergedError("a loss"), 3, "tfdrl x: a loss\n"),
        (KeyboardInterrupt(), 130, "tfdrl x: interrupted\n"),
    ],
)
def test_errors_are_a_sentence_and_an_exit_code(error, code, words, capsys):
    assert command_line.run("tfdrl x", raising(error), ["x"]) == code
    assert capsys.readouterr().err == words


def test_a_disk_that_is_full_is_a_sentence(capsys, monkeypatch):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert command_line.run("tfdrl x", lambda argv: print("words") or 0, ["x"]) == 1
        monkeypatch.undo()
    assert capsys.readouterr().err == (
        "tfdrl x: what it writes has no room: No space left on device\n"
    )


def test_a_directory_that_is_gone_is_a_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tmp_path.rmdir()
    assert command_line.run("tfdrl x", lambda argv: 0, ["x"]) == 2
    assert "the current directory is there no more" in capsys.readouterr().err


def test_another_error_shows_where_it_comes_from():
    script = (
        "from tfdrl.launch import command_line\n"
        "import sys\n"
        "sys.exit(command_line.run('tfdrl x', lambda argv: 1 / 0, ['x']))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr


def test_a_list_may_be_cut_off():
    command = f"{sys.executable} -m binaries.train --list | head -1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], cwd=_CHECKOUT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith(
        "a3c/atari_pong.gin "
    )


@pytest.mark.parametrize(
    ("command", "flag"),
    [(compare, "minutes"), (benchmark, "seconds"), (health, "timeout_secs")],
)
@pytest.mark.parametrize("number", ["nan", "inf", "-1"])
def test_a_time_is_a_finite_number(command, flag, number):
    with pytest.raises(ConfigurationError, match=rf"--{flag}={number}.*: must be a finite number"):
        command.main(["x", f"--{flag}={number}"])
