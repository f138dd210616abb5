"""Nothing that is reported counts twice, and nothing is lost by a restart."""

import json

import numpy as np
import pytest

from tfdrl.errors import ConfigurationError
from tfdrl.rpc import growth_limits, saved_counts, training_pb2
from tfdrl.rpc import report_ledger as ledger_lib
from tfdrl.rpc.report_ledger import Ledger
from tfdrl.rpc.report_rules import ReportRules
from tfdrl.rpc.tensors import MessageError
from tfdrl.types import ItemCounts

RULES = ReportRules(replicas={"actor": 2, "evaluator": 1})


def report(
    task=0, run_id=1, frames=0, first=0, returns=(), metrics=None, role="actor", items=(0, 0)
):
    return training_pb2.ReportRequest(
        sender=training_pb2.Sender(role=role, task=task, run_id=run_id),
        frames=frames,
        items_inserted=items[0],
        items_sampled=items[1],
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


@pytest.mark.parametrize("name", FRAME_SCRIPTS)
@pytest.mark.parametrize("kind", ["inserted", "sampled"])
def test_items_are_counted_like_frames(name, kind):
    ledger = Ledger()
    for task, run_id, items, total in FRAME_SCRIPTS[name]:
        ledger.record(report(task, run_id, items=ItemCounts(0, 0)._replace(**{kind: items})))
        assert ledger.items() == ItemCounts(0, 0)._replace(**{kind: total})
    ledger.count_sampled(5)  # of the owner itself
    assert ledger.items().sampled == 5 + (total if kind == "sampled" else 0)


def test_items_of_another_ratio_do_not_count():
    ledger = Ledger()
    ledger.record(report(0, items=(1000, 0)))
    ledger.count_sampled(300)
    assert ledger.count_for_ratio(8.0, inserted=1000)  # the first time: as they are
    assert not ledger.count_for_ratio(8.0, inserted=5)
    ledger.record(report(0, items=(1100, 0)))
    ledger.count_sampled(50)
    assert ledger.items() == ItemCounts(1100, 50)
    assert ledger.count_for_ratio(2.0, inserted=400)
    assert ledger.items() == ItemCounts(400, 0)
    ledger.record(report(1, items=(7, 3)))
    assert ledger.items() == ItemCounts(407, 3)


def test_a_learner_from_an_older_checkpoint_counts_its_own_samples_anew():
    """Actors that live on tell what they inserted since; what was learnt since is lost."""
    before = Ledger()
    before.count_for_ratio(8.0, inserted=0)
    before.record(report(0, run_id=7, items=(500, 0)))
    before.count_sampled(2000)
    state = json.loads(json.dumps(before.state()))
    before.record(report(0, run_id=7, items=(900, 0)))
    before.count_sampled(3000)
    assert before.items() == ItemCounts(900, 5000)
    after = Ledger()
    after.restore(state)
    assert after.items() == ItemCounts(500, 2000)
    assert not after.count_for_ratio(8.0, inserted=123)
    after.record(report(0, run_id=7, items=(900, 0)))
    assert after.items() == ItemCounts(900, 2000)
    after.restore(state)
    assert after.items() == ItemCounts(900, 2000)


@pytest.mark.parametrize("ratio", [8.0, None])
def test_a_state_of_a_version_without_items(ratio):
    ledger = Ledger()
    ledger.restore({"runs": [["actor", 0, 1, 100, 2]]})
    assert ledger.frames() == 100 and ledger.items() == ItemCounts(0, 0)
    assert ledger.count_for_ratio(ratio, inserted=1000)
    assert not ledger.count_for_ratio(ratio, inserted=1)
    assert ledger.items() == ItemCounts(1000, 0)
    ledger.record(report(0, run_id=1, frames=110, items=(10, 0)))
    assert ledger.items() == ItemCounts(1010, 0) and ledger.frames() == 110


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
    "state",
    [
        *({}, {"runs": 3}, {"runs": [["actor", 0]]}, {"runs": [list("abcde")]}),
        *({"runs": [], "items": 3}, {"runs": [], "items": {"begin": [1]}}),
        {"runs": [["actor", 0, 1, 10, 0, "x", 0]]},
    ],
)
def test_restore_refuses_nonsense(state):
    ledger = Ledger()
    ledger.record(report(frames=10))
    with pytest.raises(ConfigurationError, match="counters of the checkpoint cannot be read"):
        ledger.restore(state)
    assert ledger.frames() == 10


def test_more_processes_than_a_program_without_rules_can_have(monkeypatch):
    monkeypatch.setattr(ledger_lib, "MAX_PROCESSES", 2)
    ledger = Ledger()
    ledger.record(report(0, frames=1))
    ledger.record(report(1, frames=1))
    with pytest.raises(ledger_lib.TooManyRunsError):
        ledger.record(report(2, frames=1))
    ledger.record(report(0, frames=5))
    assert ledger.frames() == 6 and len(ledger.roles()) == 2


@pytest.fixture
def clock(monkeypatch):
    """Moves by hand."""

    class Clock:
        secs = 1000.0

    for module in (ledger_lib, growth_limits, saved_counts):
        monkeypatch.setattr(module.time, "monotonic", lambda: Clock.secs)
    return Clock


def test_a_flood_of_run_ids_shuts_nobody_out_for_good(clock):
    ledger = Ledger(RULES)
    ledger.record(report(0, run_id=1, frames=100))
    ledger.record(report(1, run_id=1, frames=100))
    accepted = 0
    for run_id in range(1000, 3000):
        clock.secs += 0.001
        try:
            ledger.record(report(0, run_id=run_id, frames=1))
            accepted += 1
        except ledger_lib.TooManyRunsError as error:
            assert "try again in" in str(error)
    assert accepted == ledger_lib.KEPT_RUNS - 1
    ledger.record(report(0, run_id=1, frames=120))  # who was here goes on
    ledger.record(report(1, run_id=2, frames=10))  # another task does not notice
    assert ledger.frames() == 120 + 100 + 10 + accepted
    clock.secs += ledger_lib.SILENT_SECS
    ledger.record(report(0, run_id=3, frames=7))
    assert ledger.frames() == 120 + 100 + 10 + accepted + 7


def test_of_runs_that_are_over_the_sum_is_kept(clock):
    ledger = Ledger(RULES)
    for run_id in range(100):
        clock.secs += ledger_lib.SILENT_SECS
        ledger.record(report(0, run_id=run_id, frames=10, items=(3, 2)))
    state = json.loads(json.dumps(ledger.state()))
    assert len(state["runs"]) == ledger_lib.KEPT_RUNS and len(json.dumps(state)) < 2000
    for _ in range(2):
        after = Ledger(RULES)
        after.restore(state)
        after.restore(state)
        assert after.frames() == 1000 and after.items() == ItemCounts(300, 200)
        after.record(report(0, run_id=99, frames=15))
        assert after.frames() == 1005


def test_runs_that_a_flood_left_in_a_checkpoint_keep_their_sum_alone():
    state = {"runs": [["actor", 0, run_id, 2, 0, 1, 0] for run_id in range(1 << 16)]}
    state["runs"] += [["actor", 99, 1, 5, 0], ["nobody", 0, 1, 7, 0]]  # of a larger program
    ledger = Ledger(RULES)
    ledger.restore(state)
    assert ledger.frames() == 2 * (1 << 16) + 5 + 7 and ledger.items().inserted == 1 << 16
    assert len(ledger.state()["runs"]) == ledger_lib.KEPT_RUNS
    ledger.record(report(0, run_id=(1 << 16) - 1, frames=3))
    assert ledger.frames() == 2 * (1 << 16) + 5 + 7 + 1


@pytest.mark.parametrize("kind", ["frames", "inserted", "sampled"])
def test_counts_that_no_process_reaches_are_not_counted(clock, kind):
    def counted(count, run_id):
        items = {"inserted": (count, 0), "sampled": (0, count), "frames": (0, 0)}[kind]
        frames = count if kind == "frames" else 0
        return report(0, run_id=run_id, frames=frames, items=items)

    ledger = Ledger(RULES)
    most = growth_limits.MAX_AT_ONCE
    with pytest.raises(MessageError, match="no process makes more than 10,000,000 a second"):
        ledger.record(counted(most + 1, 1))
    assert ledger.state()["runs"] == [] and ledger.roles() == []
    ledger.record(counted(most, 1))
    for run_id in (1, 2):  # another run id gives no more room
        with pytest.raises(MessageError, match=f"{kind} grew by"):
            ledger.record(counted(2 * most, run_id))
    ledger.record(report(1, frames=most))  # another task has its own
    clock.secs += 1.0
    ledger.record(counted(most + growth_limits.MAX_PER_SECOND, 1))
    total = {"frames": ledger.frames, "inserted": lambda: ledger.items().inserted}
    total["sampled"] = lambda: ledger.items().sampled
    others = most if kind == "frames" else 0
    assert total[kind]() == most + growth_limits.MAX_PER_SECOND + others


def test_the_sum_of_all_stays_a_number_that_can_be_sent(monkeypatch):
    monkeypatch.setattr(ledger_lib, "MAX_TOTAL", 150)
    ledger = Ledger()
    ledger.record(report(0, frames=100))
    with pytest.raises(MessageError, match="pass 150"):
        ledger.record(report(1, frames=100))
    ledger.record(report(1, frames=50))
    assert ledger.frames() == 150


ABSURD = {
    "frames": {"runs": [["actor", 0, 1, (1 << 63) - 1, 0], ["actor", 1, 1, 100, 0]]},
    "frames in so little time": {"runs": [["actor", 0, 1, 1 << 40, 0], ["actor", 1, 1, 100, 0]]},
    "negative": {"runs": [["actor", 0, 1, -5, 0], ["actor", 1, 1, 100, 0]]},
    "items": {"runs": [["actor", 0, 1, 9, 0, 1 << 62, 3], ["actor", 1, 1, 100, 0]]},
    "samples": {"runs": [["actor", 0, 1, 9, 0, 3, 1 << 62], ["actor", 1, 1, 100, 0]]},
    "sum": {"runs": [["actor", 1, 1, 100, 0]], "forgotten": [1 << 63, 0, 0]},
    "own": {"runs": [["actor", 1, 1, 100, 0]], "items": {"ratio": 8.0, "own_sampled": 1 << 63}},
    "begin": {"runs": [["actor", 1, 1, 100, 0]], "items": {"ratio": 8.0, "begin": [-(1 << 63), 0]}},
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_counts_of_a_checkpoint_are_left_out_and_said(name, caplog):
    ledger = Ledger(RULES)
    ledger.restore(json.loads(json.dumps(ABSURD[name])), trained_secs=60.0)
    assert "THE CHECKPOINT HAS ABSURD COUNTS" in caplog.text
    assert ledger.frames() == 100
    assert ledger.items() == ItemCounts(0, 0)
    assert ledger.count_for_ratio(8.0, inserted=5) and ledger.items() == ItemCounts(5, 0)
    ledger.record(report(1, run_id=1, frames=130))
    assert ledger.frames() == 130


def test_metrics_stay_until_replaced():
    ledger = Ledger()
    ledger.record(report(run_id=1, metrics={"loss": 1.0, "old": 2.0}))
    ledger.record(report(run_id=1, frames=5))
    assert ledger.roles()[0].metrics == {"loss": 1.0, "old": 2.0}
    ledger.record(report(run_id=2, metrics={"loss": 3.0}))
    (role,) = ledger.roles()
    assert (role.run_id, role.metrics) == (2, {"loss": 3.0})
    assert 0 <= role.seconds_since_report < 5
