"""Whose steps an inference batch waits for."""

import pytest

from tfdrl.inference import awaited
from tfdrl.inference.awaited import AwaitedEnvironments


class Played:
    def __init__(self, rows, until_secs):
        self.rows, self._until_secs = rows, until_secs

    def is_awaited(self, now_secs):
        return now_secs < self._until_secs


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(awaited.time, "monotonic", lambda: now[0])
    return now


def test_those_are_counted_whose_steps_may_come(clock):
    environments = AwaitedEnvironments()
    assert environments.count() == 0
    environments.played = [Played(3, until_secs=200.0), Played(4, until_secs=100.5)]
    assert environments.count() == 0  # as of less than a twentieth of a second ago
    clock[0] += 0.06
    assert environments.count() == 7
    clock[0] += 1.0
    assert environments.count() == 3


def test_a_change_is_counted_at_once(clock):
    environments = AwaitedEnvironments()
    environments.count()
    environments.played = [Played(3, until_secs=200.0)]
    environments.count_again()
    assert environments.count() == 3
