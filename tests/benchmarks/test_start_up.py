"""What a start costs, of commands that stand for a launcher and its roles."""

import sys

import pytest

from tfdrl.benchmarks import start_up
from tfdrl.errors import UnavailableError

_ROLES = """
import pathlib, time
logs = pathlib.Path({logs!r})
for number, secs in enumerate((1.5, 2.25)):
    words = f"actor begins, after {{secs}} CPU seconds of its process"
    (logs / f"actor-{{number}}.log").write_text(words)
    time.sleep(0.5)
"""


def test_roles_have_been_called_once_all_of_them_say_so(tmp_path):
    observer = start_up.StartObserver(tmp_path, 2)
    command = [sys.executable, "-c", _ROLES.format(logs=str(tmp_path))]
    whole = start_up.cost_of(command, tmp_path, observer)
    # The two say 3.75 s of theirs; the process that was started has used some, too.
    assert 3.75 < observer.called.cpu_secs < 3.75 + whole.cpu_secs
    assert 0.5 < observer.called.wall_secs < whole.wall_secs
    assert whole.wall_secs > 1.0 and observer.memory_mb > 1


def test_roles_that_are_missing_have_not_been_called(tmp_path):
    observer = start_up.StartObserver(tmp_path, 3)
    start_up.cost_of([sys.executable, "-c", _ROLES.format(logs=str(tmp_path))], tmp_path, observer)
    assert observer.called is None


def test_a_start_that_fails_is_shown_with_its_last_words(tmp_path):
    with pytest.raises(UnavailableError, match=r"(?s)a start failed \(exit code 1\).*no such role"):
        start_up.cost_of([sys.executable, "-c", "raise SystemExit('no such role')"], tmp_path)
