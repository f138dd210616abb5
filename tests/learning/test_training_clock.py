"""max_minutes counts training, not the wait for the roles of a run that is continued."""

import types

import pytest

from tfdrl.experiment import Experiment
from tfdrl.learning import training_clock
from tfdrl.learning.session import LearnerSession
from tfdrl.learning.training_clock import TrainingClock


class Architecture:
    def program(self):
        raise NotImplementedError


@pytest.fixture
def now(monkeypatch):
    clock = types.SimpleNamespace(secs=100.0)
    fake = types.SimpleNamespace(monotonic=lambda: clock.secs)
    monkeypatch.setattr(training_clock, "time", fake)
    return clock


def test_waiting_after_a_resume_is_no_training(now):
    clock = TrainingClock(1.5, (7, 900))
    now.secs += 600
    assert not clock.is_over((7, 900))
    assert not clock.is_over((7, 904))  # begins
    now.secs += 89
    assert not clock.is_over((7, 904))
    now.secs += 1
    assert clock.is_over((7, 904))


def test_a_session_ends_by_it(now):
    session = types.SimpleNamespace(
        _experiment=Experiment(architecture=Architecture(), max_minutes=1.0),
        _context=types.SimpleNamespace(stop=types.SimpleNamespace(is_set=lambda: False)),
        _clock=TrainingClock(1.0, (7, 900)),
        evaluation=None,
        service=types.SimpleNamespace(frames=lambda: 900),
        step=7,
    )
    now.secs += 600
    assert LearnerSession._reason_to_end(session) is None
    session.step = 8
    assert LearnerSession._reason_to_end(session) is None
    now.secs += 61
    assert LearnerSession._reason_to_end(session) == "reached max_minutes = 1"
