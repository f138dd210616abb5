"""What is said when W&B's library does not answer, whatever else goes wrong then; without W&B."""

import subprocess
import sys
import threading
import types

import pytest

from tfdrl.errors import TfdrlError
from tfdrl.tracking import wandb_project
from tfdrl.tracking.wandb_project import WandbProject

_RUN = types.SimpleNamespace(name="a", settings={"lr": 1.0})


class _Errors:
    class Error(Exception):
        """Of the library."""

    UsageError = AuthenticationError = type("UsageError", (Error,), {})


@pytest.fixture
def wandb(monkeypatch):
    """The library, whose run takes no settings until it is let go."""
    released = threading.Event()
    config = types.SimpleNamespace(update=lambda *unused, **flags: released.wait(30.0))
    library = types.SimpleNamespace(
        errors=_Errors,
        Settings=dict,
        init=lambda **unused: types.SimpleNamespace(id="1", config=config),
        teardown=lambda: None,
    )
    monkeypatch.setitem(sys.modules, "wandb", library)
    monkeypatch.setattr(wandb_project, "_MARGIN_SECS", 0.1)
    yield library
    released.set()


def _refused(tmp_path):
    project = WandbProject("p", tmp_path, offline=True, timeout_secs=0.1)
    with pytest.raises(TfdrlError, match="W&B's own process has not answered for"):
        project.open("", _RUN, 0)


def test_settings_that_are_not_taken_are_said_in_time(wandb, tmp_path):
    _refused(tmp_path)


def test_what_goes_wrong_in_the_teardown_is_not_told_instead(wandb, tmp_path):
    def fails():
        raise _Errors.Error("broken pipe")

    wandb.teardown = fails
    _refused(tmp_path)


def test_a_teardown_that_hangs_holds_nobody_up(wandb, tmp_path):
    let_go, over = threading.Event(), threading.Event()
    wandb.teardown = lambda: (let_go.wait(30.0), over.set())
    _refused(tmp_path)
    assert not over.is_set()
    let_go.set()


def test_a_process_that_has_just_ended_is_none_to_kill(wandb, tmp_path, monkeypatch):
    child = subprocess.Popen(["true"])
    child.wait()
    monkeypatch.setattr(wandb_project, "_own_processes", lambda: [child.pid])
    _refused(tmp_path)
    assert wandb_project._program(child.pid) == ""
