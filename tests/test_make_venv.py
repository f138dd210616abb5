"""Which Python the environment of `make train` is made with; the interpreters are stand-ins."""

import os
import pathlib
import shutil
import subprocess

import pytest

_SCRIPT = pathlib.Path(__file__).resolve().parents[1] / "make_venv.sh"

_PYTHON = """#!/bin/sh
case "$1 $2" in
  "-c import sys"*) echo {version} ;;
  "-c import ensurepip"*) exit {without_ensurepip} ;;
  "-m pip") test -e "${{0%/*}}/pip" ;;
  "-m venv")
    echo "$0 $*" >> "$LOG"
    for venv in "$@"; do :; done
    case "$*" in *--clear*) echo > "$venv/pyvenv.cfg" ;; esac
    mkdir -p "$venv/bin"; cp "$0" "$venv/bin/python"; echo > "$venv/bin/pip" ;;
  *) echo "$0 $*" >> "$LOG" ;;
esac
"""
_BROKEN = "#!/bin/sh\necho 'pyenv: command not found' >&2\nexit 127\n"
_UV = """#!/bin/sh
echo "uv $*${UV_VENV_CLEAR:+ --clear}" >> "$LOG"
for venv in "$@"; do :; done
mkdir -p "$venv/bin"
cp "$SELF/python3.11.stub" "$venv/bin/python"
echo > "$venv/bin/pip"
"""


@pytest.fixture
def machine(tmp_path):
    """Makes a machine with some programs on its PATH; calling it runs the script there."""
    return Machine(tmp_path)


class Machine:
    def __init__(self, directory):
        self.directory, self.path = directory, directory / "path"
        self.log, self.venv = directory / "log", directory / "env"
        self.path.mkdir()
        self.log.touch()
        self._write(directory / "python3.11.stub", _python("3.11"))
        for tool in ("mkdir", "cp", "grep"):  # what the script and the stand-ins need
            (self.path / tool).symlink_to(shutil.which(tool))

    def has(self, **programs):
        for name, text in programs.items():
            self._write(self.path / name.replace("_", "."), text)
        return self

    def _write(self, path, text):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def has_uv_in_its_home(self):
        self._write(self.directory / "home/.local/bin/uv", _UV)
        return self

    def make(self, *wanted):
        """(exit code, what was said, what was run)."""
        environment = {
            "PATH": str(self.path),
            "LOG": str(self.log),
            "SELF": str(self.directory),
            "HOME": str(self.directory / "home"),
        }
        done = subprocess.run(
            [_SCRIPT, str(self.venv), *wanted],
            env=environment,
            capture_output=True,
            text=True,
            timeout=30,
        )
        return done.returncode, done.stdout + done.stderr, self.log.read_text()


def _python(version, without_ensurepip=0):
    return _PYTHON.format(version=version, without_ensurepip=without_ensurepip)


@pytest.mark.parametrize(
    ("programs", "expected"),
    [
        ({"python3": "3.9", "python3_10": "3.10", "python3_11": "3.11"}, "python3.11"),
        ({"python3": "3.12", "python3_10": "3.10"}, "python3.10"),
        ({"python3": "3.13", "python3_12": "3.12", "python3_9": "3.9"}, "python3.9"),
        ({"python3": "3.10"}, "python3"),
    ],
)
def test_the_newest_python_in_range_is_taken(machine, programs, expected):
    machine.has(**{name: _python(version) for name, version in programs.items()}, uv=_UV)
    code, said, run = machine.make()
    assert code == 0, said
    assert run == f"{machine.path / expected} -m venv {machine.venv}\n"


def test_a_shim_without_a_python_behind_it_is_passed_over(machine):
    machine.has(python3_11=_BROKEN, python3=_BROKEN, python3_9=_python("3.9"))
    code, said, run = machine.make()
    assert code == 0 and "python3.9 -m venv" in run
    assert "pyenv" not in said


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_where_python_is_too_new_uv_brings_one(machine, version):
    machine.has(python3=_python(version), uv=_UV)
    code, said, run = machine.make()
    assert code == 0 and "through uv" in said
    first, second = run.splitlines()
    assert first.startswith("uv venv ") and "--python 3.11" in first
    assert second == f"{machine.venv}/bin/python -m ensurepip --default-pip"


def test_uv_is_found_where_its_installer_puts_it(machine):
    code, said, run = machine.has(python3=_python("3.12")).has_uv_in_its_home().make()
    assert code == 0, said
    assert run.startswith("uv venv ")


def test_without_a_python_and_without_uv_two_commands_are_said(machine):
    code, said, run = machine.has(python3=_python("3.12")).make()
    assert code == 2 and not run
    first, install, make = said.splitlines()
    assert "needs Python 3.9 to 3.11" in first and "python3 is 3.12" in first
    assert install.strip().startswith("curl ") and "uv" in install
    assert make.strip() == "make train"


def test_without_any_python_it_is_the_same(machine):
    code, said, _ = machine.make()
    assert code == 2 and "python3 is not there" in said and "make train" in said


def test_debian_s_package_that_is_missing_is_named(machine):
    code, said, run = machine.has(python3_11=_python("3.11", without_ensurepip=1)).make()
    assert code == 2 and "python3.11-venv" in said and not run
    code, said, run = machine.has(uv=_UV).make()
    assert code == 0 and run.startswith("uv venv ")


def test_the_python_that_is_asked_for_is_taken_or_refused(machine):
    machine.has(python3_11=_python("3.11"), python3_12=_python("3.12"), python3_9=_python("3.9"))
    code, said, run = machine.make("python3.12")
    assert code == 2 and "PYTHON=python3.12 is 3.12" in said and not run
    code, said, run = machine.make("python3.8")
    assert code == 2 and "PYTHON=python3.8 is not to be run" in said and not run
    code, said, run = machine.make("python3.9")
    assert code == 0 and "python3.9 -m venv" in run


def test_an_environment_that_is_there_is_left_alone(machine):
    machine.has(python3=_python("3.12"), uv=_UV).make()
    before = machine.log.read_text()
    code, said, run = machine.make()
    assert (code, said, run) == (0, "", before)


@pytest.mark.parametrize("name", ["python3.11", "uv"])
@pytest.mark.parametrize("is_environment", [True, False])
def test_an_environment_of_another_python_is_replaced_and_nothing_else(
    machine, name, is_environment
):
    machine.has(**{name.replace(".", "_"): _UV if name == "uv" else _python("3.11")})
    machine.has(python3=_python("3.12"))
    (machine.venv / "bin").mkdir(parents=True)
    (machine.venv / "bin" / "python").symlink_to(machine.path / "python3")
    if is_environment:
        (machine.venv / "pyvenv.cfg").touch()
    code, _, run = machine.make()
    assert code == 0
    assert ("--clear" in run) == is_environment, run


@pytest.mark.parametrize("fault", ["without pip", "without Python"])
def test_an_environment_that_is_half_made_is_made_anew(machine, fault):
    machine.has(python3_11=_python("3.11")).make()
    before = machine.log.read_text()
    (machine.venv / "bin" / {"without pip": "pip", "without Python": "python"}[fault]).unlink()
    code, said, run = machine.make()
    assert (
        code == 0 and "making" in said and run.count(" -m venv ") == before.count(" -m venv ") + 1
    )
    assert machine.make() == (0, "", run)


def test_the_makefile_asks_it_before_it_installs():
    text = (_SCRIPT.parent / "Makefile").read_text()
    assert "@./make_venv.sh $(VENV) $(PYTHON)" in text
    assert os.access(_SCRIPT, os.X_OK)
