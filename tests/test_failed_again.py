"""`make test` tries few failures once more, alone, and nothing that fails twice passes."""

import subprocess
import sys

import pytest
from paths import CHECKOUT

_SCRIPT = CHECKOUT / "tests" / "support" / "failed_again.py"
_TESTS = """
import pathlib

def test_unlucky():
    first = pathlib.Path("was here")
    assert first.exists() or first.touch()

def test_broken():
    assert {works}

def test_fine():
    pass
"""


def _suite(directory, text):
    """Both runs of a suite of one file: the exit codes, and what the second printed."""
    (directory / "test_it.py").write_text(text)
    first = subprocess.run([sys.executable, "-m", "pytest", "-q", "test_it.py"], cwd=directory)
    command = [sys.executable, str(_SCRIPT), str(first.returncode)]
    again = subprocess.run(command, cwd=directory, capture_output=True, text=True)
    return first.returncode, again.returncode, again.stdout


@pytest.mark.parametrize("works", [True, False])
def test_once_more(tmp_path, works):
    first, again, output = _suite(tmp_path, _TESTS.format(works=works))
    assert (first, again) == (1, 0 if works else 1)
    assert "failed; their files once more, alone:\n  test_it.py" in output
    told = "passed alone, failed beside others:\n  test_it.py::test_unlucky" in output
    assert told == works


def test_many_failures_are_not_tried_again(tmp_path):
    broken = "".join(f"def test_{i}():\n    assert 0\n" for i in range(6))
    assert _suite(tmp_path, broken) == (1, 1, "")


def test_another_end_than_by_failures_is_passed_on(tmp_path):
    assert _suite(tmp_path, "def test_it(")[:2] == (2, 2)
