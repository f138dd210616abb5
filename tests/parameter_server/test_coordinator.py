"""What the coordinator makes of the parameter servers' counters."""

import sys

import pytest
import tensorflow as tf

from tfdrl.errors import DivergedError
from tfdrl.parameter_server.age_histogram import mean_age
from tfdrl.parameter_server.coordinator import ServerMetrics, count_updates
from tfdrl.parameter_server.settings import ParameterServerSettings


class Watch:
    """Statuses that were prepared, and what the servers were asked for."""

    def __init__(self, *statuses):
        self._statuses = list(statuses)
        self.asked, self.is_lost, self.is_frozen = [], False, False

    def statuses(self):
        return self._statuses.pop(0)

    def rollback(self, version):
        return self.tell({0: version})

    def tell(self, orders):
        self.asked += orders.values()
        return orders if self.is_lost else {}

    def freeze(self):
        self.is_frozen = True


def status(version=0, bad=0, epoch=0, rollbacks=0, **changes):
    return {
        "version": version,
        "epoch": epoch,
        "rollbacks": rollbacks,
        "verdicts": {"accepted": version, "non_finite": bad},
        "pulls": 2 * version,
        "bytes": 1000 * version,
        "ages": [version, *[0] * 15],
        "losses": [3.0 * version, version],
        "snapshots": [[5, 3.0]],
        **changes,
    }


@pytest.fixture
def clock(monkeypatch):
    """Seconds that pass only when told to."""
    now = [100.0]
    monkeypatch.setattr("tfdrl.runtime.metrics.time.monotonic", lambda: now[0])
    return now


def look(metrics, clock, secs=1.0):
    clock[0] += secs
    metrics.look()
    return metrics.take()


def test_counters_as_metrics(clock):
    watch = Watch(
        [status(), status()],
        [status(100, bad=3, epoch=0, rollbacks=2, ages=[50, 30, 20, *[0] * 13]), status(80)],
        [status(100, bad=3), None],
    )
    metrics = ServerMetrics(watch, ParameterServerSettings())
    assert metrics.take() == {}
    look(metrics, clock)
    values = look(metrics, clock, secs=2.0)
    assert values["gradients/accepted"] == 100 and values["gradients/non_finite"] == 3
    assert (values["parameter_server/epoch"], values["parameter_server/rollbacks"]) == (0, 2)
    assert values["gradients/age"] == (50 * 0 + 30 * 1 + 20 * 2.5) / 100
    expected = {"versions": 100 / 2, "pulls": 200 / 2, "bytes": 100_000 / 2}
    for name, rate in expected.items():
        assert values[f"parameter_server_0/{name}_per_second"] == pytest.approx(rate)
        assert values[f"parameter_server_1/{name}_per_second"] == pytest.approx(0.8 * rate)
    values = look(metrics, clock)
    # No update since: the mean |loss| is of the last that there were; the second server is away.
    assert values["learner/loss"] == 3.0
    assert values["parameter_server_0/versions_per_second"] == 0.0
    assert not [name for name in values if name.startswith("parameter_server_1")]


def test_the_loss_is_of_the_updates_between_two_looks(clock):
    losses = [[0.0, 0], [30.0, 10], [80.0, 20]]
    watch = Watch(*([status(n, losses=loss)] for n, loss in zip((0, 10, 20), losses)))
    metrics = ServerMetrics(watch, ParameterServerSettings())
    look(metrics, clock)
    assert look(metrics, clock)["learner/loss"] == 30.0 / 10
    assert look(metrics, clock)["learner/loss"] == (80.0 - 30.0) / 10


@pytest.mark.parametrize(
    ("is_lost", "asked"), [(False, ([], [], [5], [5])), (True, ([], [], [5], [5, 5]))]
)
def test_a_rollback_is_ordered_until_all_servers_have_heard_it(clock, is_lost, asked):
    watch = Watch([status(10)], [status(10, bad=4)], [status(10, bad=5)], [status(11, 5, epoch=1)])
    watch.is_lost = is_lost
    metrics = ServerMetrics(watch, ParameterServerSettings(rollback_nonfinite=5))
    for expected in asked:
        look(metrics, clock)
        assert watch.asked == expected


def test_after_a_divergence_the_servers_keep_their_last_checkpoints(clock):
    watch = Watch([status(10)], [status(10, bad=5)])
    metrics = ServerMetrics(watch, ParameterServerSettings(rollback_nonfinite=5, max_rollbacks=0))
    look(metrics, clock)
    assert not watch.is_frozen
    with pytest.raises(DivergedError):
        look(metrics, clock)
    assert watch.is_frozen


def test_a_first_server_that_is_away_tells_nothing(clock):
    watch = Watch([status(10)], [None], [status(12)])
    metrics = ServerMetrics(watch, ParameterServerSettings())
    before = look(metrics, clock)
    assert look(metrics, clock) == before
    assert look(metrics, clock)["gradients/accepted"] == 12


@pytest.mark.parametrize(
    ("ages", "expected"),
    [
        ([0, 0, 0], None),
        ([7, 0, 0, 0], 0.0),
        ([0, 3, 0, 0], 1.0),
        ([0, 0, 2, 0], (2 + 3) / 2),
        ([0, 0, 0, 5], (4 + 5 + 6 + 7) / 4),
        ([4, 0, 0, 0, 4], (8 + 15) / 2 / 2),
        ([1, 2, 3, 4], (0 + 2 * 1.0 + 3 * 2.5 + 4 * 5.5) / 10),
    ],
)
def test_mean_age_takes_each_bucket_at_its_middle(ages, expected):
    assert mean_age(ages) == expected


def test_counted_updates_are_kept_nowhere():
    counter, updates = tf.Variable(0, dtype=tf.int64), int("1234567")
    before = sys.getrefcount(updates)
    count_updates(counter, updates)
    assert counter.numpy() == updates and sys.getrefcount(updates) == before
