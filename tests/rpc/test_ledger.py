"""Nothing that is reported counts twice, and nothing is lost by a restart."""

import json

import numpy as np
import pytest

from tfdrl.errors import ConfigurationError
from tfdrl.rpc import ledger as ledger_lib
from tfdrl.rpc import training_pb2
from tfdrl.rpc.ledger import Ledger


def report(task=0, run_id=1, frames=0, first=0, returns=(), metrics=None, role="actor"):
    return training_pb2.ReportRequest(
        sender=training_pb2.Sender(role=role, task=task, run_id=run_id),
        frames=frames,
        metrics=metrics or {},
        episodes=training_pb2.Episodes(
            first=first, returns=returns, length_frames=[10 * int(r) for r in returns]
        ),
    )


# Each: (task, run_id, cumulative frames, total expected afterwards).
FRAME_SCRIPTS = {
    "repeated": [(0, 1, 100, 100), (0, 1, 100, 100), (0, 1, 150, 150)],
    "out of order": [(0, 1, 200, 200), (0, 1, 100, 200), (0, 1, 210, 210)],
    "two tasks": [(0, 1, 100, 100), (1, 1, 50, 150), (0, 1, 120, 170)],
    "restarted": [(0, 1, 100, 100), (0, 2, 0, 100), (0, 2, 30, 130), (0, 2, 30, 130)],
    "late word of a predecessor": [(0, 1, 100, 100), (0, 2, 30, 130), (0, 1, 110, 140)],
}


@pytest.mark.parametrize("name", FRAME_SCRIPTS)
def test_frames(name):
    ledger = Ledger()
    for task, run_id, frames, total in FRAME_SCRIPTS[name]:
        ledger.record(report(task, run_id, frames))
        assert ledger.frames() == total


# Each: (first, returns, returns that are new).
EPISODE_SCRIPTS = {
    "in turn": [(0, [1, 2], [1, 2]), (2, [3], [3])],
    "sent again": [(0, [1, 2], [1, 2]), (0, [1, 2], [])],
    "sent again with more": [(0, [1, 2], [1, 2]), (0, [1, 2, 3], [3])],
    "sent again, old": [(0, [1, 2, 3], [1, 2, 3]), (0, [1], []), (3, [4], [4])],
    "reports that a dead learner had": [(5, [6], [6]), (5, [6, 7], [7])],
}


@pytest.mark.parametrize("name", EPISODE_SCRIPTS)
def test_episodes(name):
    ledger = Ledger()
    for first, returns, new in EPISODE_SCRIPTS[name]:
        ledger.record(report(first=first, returns=returns))
        taken = ledger.take_episodes()
        assert taken.returns.tolist() == new
        assert taken.length_frames.tolist() == [10 * value for value in new]
        assert taken.returns.dtype == np.float32 and taken.length_frames.dtype == np.int64


def test_pending_episodes_are_bounded_and_the_newest_stay(monkeypatch):
    monkeypatch.setattr(ledger_lib, "MAX_PENDING_EPISODES", 5)
    ledger = Ledger()
    for first in range(0, 20, 2):
        ledger.record(report(first=first, returns=[first, first + 1]))
    assert ledger.take_episodes().returns.tolist() == [16, 17, 18, 19]


def test_restore_goes_on_counting():
    before = Ledger()
    before.record(report(0, run_id=(1 << 64) - 1, frames=100, returns=[1, 2]))
    before.record(report(1, run_id=7, frames=50))
    state = json.loads(json.dumps(before.state()))
    after = Ledger()
    # The first word after the learner's restart may come before its checkpoint is read.
    after.record(report(1, run_id=7, frames=80))
    after.restore(state)
    assert after.frames() == 100 + 80
    after.record(report(0, run_id=(1 << 64) - 1, frames=130, returns=[1, 2, 3]))
    after.record(report(1, run_id=8, frames=5))
    assert after.frames() == 130 + 80 + 5
    assert after.take_episodes().returns.tolist() == [3]
    after.restore(state)
    assert after.frames() == 130 + 80 + 5


@pytest.mark.parametrize(
    "state", [{}, {"runs": 3}, {"runs": [["actor", 0]]}, {"runs": [list("abcde")]}]
)
def test_restore_refuses_nonsense(state):
    ledger = Ledger()
    ledger.record(report(frames=10))
    with pytest.raises(ConfigurationError, match="counters of the checkpoint cannot be read"):
        ledger.restore(state)
    assert ledger.frames() == 10


def test_runs_are_bounded(monkeypatch):
    monkeypatch.setattr(ledger_lib, "MAX_RUNS", 2)
    ledger = Ledger()
    ledger.record(report(0, frames=1))
    ledger.record(report(1, frames=1))
    with pytest.raises(ledger_lib.TooManyRunsError):
        ledger.record(report(2, frames=1))
    ledger.record(report(0, frames=5))
    assert ledger.frames() == 6 and len(ledger.roles()) == 2


def test_metrics_stay_until_replaced():
    ledger = Ledger()
    ledger.record(report(run_id=1, metrics={"loss": 1.0, "old": 2.0}))
    ledger.record(report(run_id=1, frames=5))
    assert ledger.roles()[0].metrics == {"loss": 1.0, "old": 2.0}
    ledger.record(report(run_id=2, metrics={"loss": 3.0}))
    (role,) = ledger.roles()
    assert (role.run_id, role.metrics) == (2, {"loss": 3.0})
    assert 0 <= role.seconds_since_report < 5
