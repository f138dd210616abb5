"""Parameter servers and workers in one process: what a push may come to, snapshots, checkpoints.

The servers are TensorFlow's own, over loopback; they end with the process.
"""

import pathlib
import threading

import numpy as np
import pytest
import tensorflow as tf
from running_roles import free_port

from tfdrl.errors import ConfigurationError, TfdrlError
from tfdrl.parameter_server import remote_variables, role
from tfdrl.parameter_server.client import GlobalParameters
from tfdrl.parameter_server.gradients import Gradient
from tfdrl.parameter_server.protocol import (
    ACCEPTED,
    CLOSED,
    COUNTS,
    NON_FINITE,
    OLD_EPOCH,
    OUTLIER,
    STALE,
    STARTED,
    Header,
    State,
)
from tfdrl.parameter_server.role import ShardServer
from tfdrl.parameter_server.settings import ParameterServerSettings
from tfdrl.parameter_server.watch import ParameterWatch
from tfdrl.topology import Address, Context

#: Two shards hold the variables 0 and 2 (6 + 1 elements), and 1 and 3 (4 + 5).
SHAPES = ((3, 2), (4,), (), (5,))


def variables_of(value, shapes=SHAPES):
    return [
        tf.Variable(tf.fill(shape, float(value)), name=f"v{i}") for i, shape in enumerate(shapes)
    ]


class Worker(GlobalParameters):
    """A worker with variables of its own, all zero before it connects."""

    def __init__(self, addresses, settings, task=0, timeout_secs=20.0, barrier=0, **changes):
        self.variables = variables_of(0.0, changes.pop("shapes", SHAPES))
        defaults = {"replicas": 1, "root_dir": pathlib.Path(), "experiment": "x"}
        self.context = Context("worker", task, **{**defaults, **changes})
        super().__init__(addresses, self.variables, settings, self.context, timeout_secs, barrier)

    def gradient(self, value, loss=1.0):
        """One whose elements are `value`, or variable by variable those of the list `value`."""
        values = value if isinstance(value, list) else [value] * len(self.variables)
        whole = [np.full(v.shape, x, np.float32) for v, x in zip(self.variables, values)]
        parts = (np.concatenate([whole[i].ravel() for i in mine]) for mine in self.indices)
        return Gradient(loss, 1.0, True, tuple(parts), {})

    def send(self, value=1.0, times=1, **loss):
        """Pushes; returns the verdicts."""
        return [self.push(self.gradient(value, **loss), 10) for _ in range(times)]

    def values(self):
        return [variable.numpy() for variable in self.variables]


class Servers:
    """All shards of some parameters that start at `value`."""

    def __init__(self, directory, settings, shards=1, value=2.0, barrier=0, shapes=SHAPES):
        self.settings, self._barrier = settings, barrier
        self.addresses = tuple(Address("127.0.0.1", free_port()) for _ in range(shards))
        self._shapes = shapes
        self.served = [
            ShardServer(
                variables_of(value, shapes),
                settings,
                Context(
                    *("parameter_server", task, shards, pathlib.Path(directory)),
                    listen=address,
                    experiment="x",
                ),
                barrier,
            )
            for task, address in enumerate(self.addresses)
        ]
        self.shards = [served.shard for served in self.served]

    def worker(self, task=0, **arguments):
        defaults = {"barrier": self._barrier, "shapes": self._shapes}
        worker = Worker(self.addresses, self.settings, task, **{**defaults, **arguments})
        assert worker.connect()
        return worker

    def statuses(self):
        return [shard.status() for shard in self.shards]

    def close(self):
        for served in self.served:
            served.close()


def send_raw(shard, header, value=1.0, loss=1.0):
    """A push to one shard with any header; returns its State."""
    graph = shard.graph
    flat = np.full(sum(graph.layout.sizes), value, np.float32)
    with tf.compat.v1.Session(shard.target, graph.graph) as session:
        feeds = {graph.flat: flat, graph.header: header, graph.loss: loss}
        return State(*map(int, session.run(graph.push, feeds)[0]))


def grown(before, after):
    """By how much the counters of a status grew; verdicts that did not are left out."""
    names = ("version", "epoch", "steps", "pulls")
    found = {name: after[name] - before[name] for name in names}
    verdicts = after["verdicts"].items()
    return found, {k: n - before["verdicts"][k] for k, n in verdicts if n != before["verdicts"][k]}


def check(worker, expected):
    """All elements of the worker's variables are `expected`."""
    for value in worker.values():
        np.testing.assert_array_equal(value, np.full(value.shape, expected, np.float32))


def sgd(**settings):
    return ParameterServerSettings(**{"rule": "sgd", "learning_rate": 1.0, **settings})


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Two shards without an age limit."""
    return Servers(tmp_path_factory.mktemp("plain"), sgd(snapshots=3), shards=2)


@pytest.fixture(scope="module")
def aged(tmp_path_factory):
    """Two shards that take a gradient two updates old, not older."""
    return Servers(tmp_path_factory.mktemp("aged"), sgd(max_gradient_age=2), shards=2)


@pytest.fixture(scope="module")
def pair(plain):
    return [plain.worker(task) for task in range(2)]


@pytest.fixture
def two(pair):
    """Two workers of `plain`, with the newest parameters and counters at 0."""
    for worker in pair:
        worker.pull()
        worker.accepted = worker.rejected = 0
    return pair


# Parameters up and down.


def test_a_worker_begins_with_what_the_servers_have(aged):
    worker = aged.worker()
    assert worker.indices == ((0, 2), (1, 3)) and worker.nbytes == 4 * (6 + 1 + 4 + 5)
    assert (worker.version, worker.epoch, worker.steps) == (0, 0, 0)
    check(worker, 2.0)


def test_each_variable_gets_its_own_gradient(two):
    before = two[0].values()
    assert two[0].send([1.0, 2.0, 3.0, 4.0]) == [ACCEPTED]
    two[1].pull()
    for worker in two:
        for i, (new, old) in enumerate(zip(worker.values(), before)):
            np.testing.assert_array_equal(new, old - (i + 1.0))
    two[0].send([-1.0, -2.0, -3.0, -4.0])


def test_parameters_travel_only_if_they_are_newer(plain, two):
    start, value = plain.statuses(), two[0].values()[0][0, 0]
    assert not two[0].pull()
    assert [grown(*pair)[0]["pulls"] for pair in zip(start, plain.statuses())] == [0, 0]
    two[1].send()
    assert [grown(*pair)[0]["pulls"] for pair in zip(start, plain.statuses())] == [1, 1]
    assert two[0].pull() and not two[0].pull()
    assert [grown(*pair)[0]["pulls"] for pair in zip(start, plain.statuses())] == [2, 2]
    check(two[0], value - 1.0)
    assert two[0].version == two[1].version == start[0]["version"] + 1


def test_refresh_brings_them_although_their_version_is_known(two):
    value = two[0].values()[0][0, 0]
    for variable in two[0].variables:
        variable.assign(tf.fill(variable.shape, 77.0))
    assert not two[0].pull()
    check(two[0], 77.0)
    two[0].refresh()
    check(two[0], value)


def test_a_push_brings_what_others_did_meanwhile(two):
    value = two[0].values()[0][0, 0]
    two[1].send(0.5, times=3)
    assert two[0].send(0.25) == [ACCEPTED]
    check(two[0], value - 3 * 0.5 - 0.25)
    assert two[0].version == two[1].version + 1


# Verdicts and counters.


def test_counters_of_accepted_gradients(plain, two):
    start = plain.statuses()
    two[0].send(1.0, times=2, loss=3.0)
    two[0].send(1.0, loss=-5.0)
    for before, after in zip(start, plain.statuses()):
        counts, verdicts = grown(before, after)
        assert counts == {"version": 3, "epoch": 0, "steps": 3 * 10, "pulls": 3}
        assert verdicts == {"accepted": 3}
        # |loss|: an actor-critic's own may be negative, and would cancel out.
        losses = np.subtract(after["losses"], before["losses"])
        np.testing.assert_allclose(losses, [3.0 + 3.0 + 5.0, 3])
    assert (two[0].accepted, two[0].rejected, two[0].loss) == (3, 0, -5.0)
    assert two[0].steps == start[0]["steps"] + 3 * 10
    assert two[0].counters()["worker/gradients"] == 3


def test_a_gradient_that_is_too_old(aged):
    one, other = aged.worker(0), aged.worker(1)
    one.send(times=2)
    assert other.send() == [ACCEPTED]  # age 2
    one.pull()
    start, value = aged.statuses(), one.values()[0][0, 0]
    one.send(times=3)
    assert other.send(100.0) == [STALE]  # age 3
    (counts, verdicts), (counts_1, verdicts_1) = (
        grown(*pair) for pair in zip(start, aged.statuses())
    )
    # The first shard rejects it, so that no other is asked.
    assert verdicts == {"accepted": 3, "stale": 1} and verdicts_1 == {"accepted": 3}
    assert counts["version"] == counts_1["version"] == 3
    assert counts["steps"] == counts_1["steps"] == 3 * 10
    check(other, value - 3.0)  # it has the newest now
    assert other.send() == [ACCEPTED] and other.rejected == 1


def test_the_first_shard_decides_on_the_age_for_all(aged):
    worker = aged.worker()
    state = send_raw(aged.shards[1], Header(worker.epoch, aged.statuses()[1]["version"]))
    for _ in range(3):
        state = send_raw(aged.shards[1], Header(worker.epoch, state.version))
    old = Header(state.epoch, state.version - 3)
    assert send_raw(aged.shards[1], old).verdict == STALE
    start = aged.statuses()
    assert worker.send() == [ACCEPTED]  # age 0 on the first shard, 4 on the second
    for before, after in zip(start, aged.statuses()):
        assert grown(before, after)[1] == {"accepted": 1}


def test_ages_are_counted_in_buckets(plain, two):
    start = plain.statuses()[0]["ages"]
    for age in (0, 1, 2, 3, 4, 7, 8):
        two[1].pull()
        two[0].pull()
        assert two[0].send(times=age) == [ACCEPTED] * age
        assert two[1].send() == [ACCEPTED]
    found = np.subtract(plain.statuses()[0]["ages"], start)
    own = 0 + 1 + 2 + 3 + 4 + 7 + 8  # pushes of age 0
    # 0; 1; 2 and 3; 4 and 7; 8
    np.testing.assert_array_equal(found[:6], [own + 1, 1, 2, 2, 1, 0])
    assert found.sum() == own + 7


@pytest.mark.parametrize(
    ("age", "bucket"), [(15, 4), (16, 5), (2**14 - 1, 14), (2**14, 15), (2**40, 15), (-3, 0)]
)
def test_buckets_of_great_ages(plain, age, bucket):
    before = plain.statuses()[0]
    header = Header(before["epoch"], before["version"] - age)
    assert send_raw(plain.shards[0], header, value=0.0).verdict == ACCEPTED
    ages = np.subtract(plain.statuses()[0]["ages"], before["ages"])
    np.testing.assert_array_equal(ages, np.eye(16)[bucket])


def test_a_gradient_that_its_worker_knows_to_be_bad_is_not_sent(plain, two):
    start, value = plain.statuses(), two[0].values()[0][0, 0]
    two[1].send()
    bad = two[0].gradient(float("nan"), loss=float("nan"))._replace(is_finite=False)
    assert two[0].push(bad, 10) == NON_FINITE
    check(two[0], value - 1.0)
    assert two[0].withhold(OUTLIER) == OUTLIER
    (counts, verdicts), (counts_1, verdicts_1) = (
        grown(*pair) for pair in zip(start, plain.statuses())
    )
    assert verdicts == {"accepted": 1, "non_finite": 1, "outlier": 1}
    assert verdicts_1 == {"accepted": 1}
    assert counts["steps"] == counts_1["steps"] == 10
    assert np.isfinite(plain.statuses()[0]["losses"]).all()
    assert two[0].send() == [ACCEPTED] and two[0].rejected == 2


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("variable", [0, 3])  # of the first shard, of the second
def test_a_bad_gradient_is_stopped_at_the_door(plain, two, value, variable):
    start, before = plain.statuses(), two[0].values()
    verdict = two[0].send([value if i == variable else 1.0 for i in range(4)])
    found = [grown(*pair)[1] for pair in zip(start, plain.statuses())]
    if variable == 0:
        assert verdict == [NON_FINITE] and found == [{"non_finite": 1}, {}]
    else:  # the first shard has its part already
        assert verdict == [ACCEPTED] and found == [{"accepted": 1}, {"non_finite": 1}]
    assert all(shard.are_finite() for shard in plain.shards)
    for i, (new, old) in enumerate(zip(two[0].values(), before)):
        is_applied = variable == 3 and i in (0, 2)
        np.testing.assert_array_equal(new, old - (1.0 if is_applied else 0.0))
    for i in range(2):  # as they were
        state = plain.statuses()[i]
        if variable == 3 and i == 0:
            send_raw(plain.shards[i], Header(state["epoch"], state["version"]), value=-1.0)


def test_parameters_that_are_not_finite_are_seen(tmp_path):
    servers = Servers(tmp_path, sgd(), value=float("inf"))
    assert not servers.shards[0].are_finite()


# Many at once.


def test_no_push_is_lost_and_snapshots_under_load_are_consistent(tmp_path):
    """All elements fall by 1 in each update, so in any whole set of parameters they are equal.

    An update changes one variable after the other; only the gate makes a snapshot a whole one.
    TensorFlow's dense kernels lock a variable, and its slots, for the time of an update, so that
    no update is lost either.
    """
    shapes = ((300, 300), (3,), (100, 100), ())
    servers = Servers(tmp_path, sgd(snapshots=100), value=1000.0, shapes=shapes)
    workers = [servers.worker(task) for task in range(4)]
    verdicts, threads = [], []
    for worker in workers:
        run = lambda worker=worker: verdicts.extend(worker.send(times=30))  # noqa: E731
        threads.append(threading.Thread(target=run, daemon=True))
        threads[-1].start()
    shard = servers.shards[0]
    while any(thread.is_alive() for thread in threads):
        shard.snapshot()
    last = shard.snapshot()
    assert len({snapshot.version for snapshot in shard.snapshots}) > 5
    for snapshot in shard.snapshots:
        for value in snapshot.values:
            assert (value == 1000.0 - snapshot.version).all(), snapshot.version
    status = shard.status()
    assert last.version == status["version"] == 4 * 30 == len(verdicts)
    assert status["verdicts"]["accepted"] == sum(status["ages"]) == 4 * 30
    assert status["losses"] == [4 * 30 * 1.0, 4 * 30] and status["steps"] == 4 * 30 * 10
    # Some came while the gate was shut, and were sent again.
    assert verdicts == [ACCEPTED] * 4 * 30 and status["verdicts"]["closed"] > 0


# Snapshots and rollback.


@pytest.fixture(scope="module")
def shared_rmsprop(tmp_path_factory):
    settings = ParameterServerSettings(
        rule="rmsprop", learning_rate=0.1, snapshots=4, snapshot_period_updates=5
    )
    return Servers(tmp_path_factory.mktemp("rmsprop"), settings, shards=2)


def test_rollback_restores_parameters_and_slots_in_a_new_epoch(shared_rmsprop):
    worker, late = shared_rmsprop.worker(0), shared_rmsprop.worker(1)
    worker.send([0.5, -1.0, 2.0, 0.1], times=3)
    kept = [shard.snapshot() for shard in shared_rmsprop.shards]
    at_snapshot = worker.values()
    worker.send(0.3, times=2)
    after_two = worker.values()
    worker.send(50.0)
    for shard in shared_rmsprop.shards:
        shard.snapshot()  # of what is to be discarded
    start = shared_rmsprop.statuses()
    for shard, snapshot in zip(shared_rmsprop.shards, kept):
        assert shard.rollback(snapshot.version + 1).version == snapshot.version
    for shard, before, after in zip(shared_rmsprop.shards, start, shared_rmsprop.statuses()):
        counts, verdicts = grown(before, after)
        assert counts == {"version": 1, "epoch": 1, "steps": 0, "pulls": 0} and not verdicts
        assert [s.version for s in shard.snapshots][-1] == kept[0].version < before["version"]
    # One that was computed from the discarded parameters.
    late_gradient = late.gradient(1000.0)
    assert late.push(late_gradient, 10) == OLD_EPOCH
    assert worker.send(1000.0) == [OLD_EPOCH]
    for it in (worker, late):
        assert (it.epoch, it.version) == (start[0]["epoch"] + 1, start[0]["version"] + 1)
        for new, old in zip(it.values(), at_snapshot):
            np.testing.assert_array_equal(new, old)
    # Only with the slots of then the same gradients lead to the same parameters.
    assert worker.send(0.3, times=2) == [ACCEPTED] * 2
    for new, old in zip(worker.values(), after_two):
        np.testing.assert_array_equal(new, old)
    for before, after in zip(start, shared_rmsprop.statuses()):
        assert after["version"] == before["version"] + 1 + 2
    assert grown(start[1], shared_rmsprop.statuses()[1])[1] == {"accepted": 2}


def test_rollback_goes_to_the_newest_snapshot_that_is_not_newer(tmp_path):
    servers = Servers(tmp_path, sgd(snapshots=5), value=100.0)
    worker, (shard,) = servers.worker(), servers.shards
    worker.send()
    assert shard.rollback(10**9) is None and shard.status()["epoch"] == 0
    for _ in range(3):  # versions 1, 3 and 5
        shard.snapshot()
        worker.send(times=2)
    assert [s.version for s in shard.snapshots] == [1, 3, 5]
    assert shard.rollback(0) is None
    worker.pull()
    check(worker, 100.0 - 7)
    assert (shard.rollback(4).version, shard.status()["version"]) == (3, 7 + 1)
    assert [s.version for s in shard.snapshots] == [1, 3]
    worker.pull()
    check(worker, 100.0 - 3)
    assert (shard.rollback(10**9).version, shard.rollback(2).version) == (3, 1)
    worker.pull()
    check(worker, 100.0 - 1)
    assert shard.status()["epoch"] == worker.epoch == 3


def test_snapshots_are_taken_in_their_period_and_the_ring_forgets_the_oldest(tmp_path):
    servers = Servers(tmp_path, sgd(snapshots=3, snapshot_period_updates=5))
    worker, (shard,) = servers.worker(), servers.shards
    for _ in range(22):
        shard.snapshot_if_due(worker.version)
        worker.send(loss=-float(worker.version))
    shard.snapshot_if_due(worker.version)
    found = shard.status()["snapshots"]
    # At 0, 5, 10, 15 and 20; each with the mean |loss| of the five updates before.
    assert [version for version, _ in found] == [10, 15, 20]
    means = [sum(range(end - 5, end)) / 5 for end in (10, 15, 20)]
    np.testing.assert_allclose([mean for _, mean in found], means)


def test_without_snapshots_nothing_is_kept(tmp_path):
    servers = Servers(tmp_path, sgd(snapshots=0, snapshot_period_updates=1))
    worker, (shard,) = servers.worker(), servers.shards
    worker.send(times=3)
    shard.snapshot_if_due(worker.version)
    assert shard.snapshots == [] and shard.rollback(10) is None


def test_rollback_and_checkpoint_by_order(tmp_path):
    """As the coordinator and people give it: through the servers' control variables."""
    servers = Servers(tmp_path, sgd(checkpoint_period_secs=0.0), shards=2, value=100.0)
    worker = servers.worker()
    watch = ParameterWatch(servers.addresses, "test")
    watch.connect(10.0, worker.context.stop)
    for served in servers.served:
        served.tick()  # a snapshot of version 0
    worker.send(times=2)
    watch.rollback(1)
    watch.checkpoint()
    for served in servers.served:
        served.tick()
        served.tick()
    for status in watch.statuses():
        assert (status["epoch"], status["version"], status["rollbacks"]) == (1, 2 + 1, 1)
        # At the start, after the rollback, and the one asked for.
        assert status["checkpoints"] == {"asked": 1, "written": 3, "version": 2 + 1}
    assert worker.send() == [OLD_EPOCH]
    check(worker, 100.0)
    watch.freeze()
    watch.checkpoint()
    for served in servers.served:
        served.tick()
        served.tick()
    assert [status["checkpoints"]["written"] for status in watch.statuses()] == [3, 3]
    watch.close()


def test_a_server_makes_few_calls_of_its_own(tmp_path, monkeypatch):
    """Each may leave memory in TensorFlow's server for ever."""
    servers, calls = Servers(tmp_path, sgd(snapshots=3, snapshot_period_updates=100)), []
    worker, (served,) = servers.worker(), servers.served
    served.tick()  # the first snapshot
    for session in (served.shard._session, served._control):
        call = session.call
        monkeypatch.setattr(
            session, "call", lambda name, *x, call=call: calls.append(name) or call(name, *x)
        )
    worker.send()
    assert served.tick()["version"] == 1
    assert calls == ["asked", "counters", "set_status"]
    served.tick()  # nothing has changed
    assert calls[3:] == ["asked", "counters"]


def test_what_is_not_finite_becomes_neither_snapshot_nor_checkpoint(tmp_path):
    servers = Servers(tmp_path, sgd(snapshots=3, learning_rate=3e38))
    worker, (shard,) = servers.worker(), servers.shards
    assert shard.snapshot() is not None and shard.checkpoint() == 0
    worker.send(value=10.0)  # a finite gradient, whose step overflows
    assert not shard.are_finite()
    assert shard.snapshot() is None and shard.checkpoint() is None
    assert [snapshot.version for snapshot in shard.snapshots] == [0]
    assert shard.rollback(5).version == 0 and shard.are_finite()


# Checkpoints.


def checkpoint_files(directory, version):
    return sorted(directory.glob(f"parameters-0/checkpoints/checkpoint-{version}.*"))


def test_a_new_server_continues_from_the_checkpoint(tmp_path):
    settings = ParameterServerSettings(rule="adam", learning_rate=0.1)
    first = Servers(tmp_path, settings)
    assert not first.shards[0].restored
    worker, late = first.worker(), first.worker(1)
    worker.send([0.5, -1.0, 2.0, 0.1], times=3, loss=2.0)
    late.send(0.4)
    worker.pull()
    assert first.shards[0].checkpoint()
    saved, at_checkpoint = first.statuses()[0], worker.values()
    worker.send([0.3, 0.3, -0.3, 0.3], times=2)
    after_two = worker.values()
    first.close()

    second = Servers(tmp_path, settings, value=-55.0)
    assert second.shards[0].restored
    (status,) = second.statuses()
    assert status["epoch"] == saved["epoch"] + 1
    same = ("version", "steps", "verdicts", "ages", "losses")
    assert {name: status[name] for name in same} == {name: saved[name] for name in same}
    assert (status["version"], status["steps"]) == (4, 4 * 10)
    again = second.worker()
    assert (again.epoch, again.version, again.steps) == (saved["epoch"] + 1, 4, 4 * 10)
    for new, old in zip(again.values(), at_checkpoint):
        np.testing.assert_array_equal(new, old)
    # A gradient of updates that were lost.
    assert send_raw(second.shards[0], Header(saved["epoch"], 6)).verdict == OLD_EPOCH
    again.send([0.3, 0.3, -0.3, 0.3], times=2)
    for new, old in zip(again.values(), after_two):
        np.testing.assert_array_equal(new, old)


def test_a_damaged_checkpoint_is_passed_over(tmp_path):
    first = Servers(tmp_path, sgd(), value=100.0)
    worker = first.worker()
    for count in (3, 2):
        worker.send(times=count)
        assert first.shards[0].checkpoint()
    first.close()
    (data,) = [p for p in checkpoint_files(tmp_path, 5) if ".data" in p.name]
    data.write_bytes(b"\x00" * data.stat().st_size)

    second = Servers(tmp_path, sgd())
    worker = second.worker()
    assert (worker.version, worker.epoch) == (3, 1)
    check(worker, 100.0 - 3)
    second.close()
    for version in (0, 3):  # the first one is of the start
        for path in checkpoint_files(tmp_path, version):
            path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(TfdrlError, match=r"none of the 3 checkpoints in .* can be read"):
        Servers(tmp_path, sgd())


def test_the_epoch_grows_without_a_checkpoint_too(tmp_path, caplog):
    """The version starts again at 0: without another epoch old gradients would pass for new."""
    first = Servers(tmp_path, sgd())
    first.worker().send(times=3)
    first.close()
    for path in checkpoint_files(tmp_path, 0):  # somebody cleared the disk
        path.unlink()
    second = Servers(tmp_path, sgd())
    assert not second.shards[0].restored
    assert "has no checkpoint, though a server ran there" in caplog.text
    assert (second.statuses()[0]["epoch"], second.statuses()[0]["version"]) == (1, 0)
    assert send_raw(second.shards[0], Header(0, 0)).verdict == OLD_EPOCH


def test_one_server_at_a_time_has_the_directory(plain, tmp_path):
    Servers(tmp_path, sgd())
    with pytest.raises(ConfigurationError, match="in use by another parameter server"):
        Servers(tmp_path, sgd())


def test_a_push_that_began_and_never_ended_does_not_shut_the_server(tmp_path):
    """Its worker died: the gate waits a second for it, once."""
    servers = Servers(tmp_path, sgd(), value=100.0)
    worker, (shard,) = servers.worker(), servers.shards
    with shard.graph.graph.as_default():
        counts = np.zeros(COUNTS, np.int64)
        counts[STARTED] = 1
        with tf.device("/job:ps/task:0/device:CPU:0"):
            handle = remote_variables.variable("counts", counts.shape, tf.int64)
            start = remote_variables.add(handle, counts)
    with tf.compat.v1.Session(shard.target, shard.graph.graph) as session:
        session.run(start)
    assert shard.snapshot().version == 0
    assert worker.send(times=2) == [ACCEPTED] * 2
    assert shard.snapshot().version == 2 and shard.rollback(1).version == 0
    assert CLOSED not in worker.send() and shard.checkpoint()


def test_a_call_that_was_broken_off_is_tried_again_for_some_seconds(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(role, "_RETRY_SECS", 1.5)
    servers = Servers(tmp_path, sgd())
    (served,) = servers.served
    control = served._control
    control._session.close()  # TensorFlow's, behind the back of ours
    threading.Timer(0.5, control.connect).start()
    role.retried(served.tick, 0)
    assert "parameter server 0 tries again: RuntimeError: " in caplog.text
    control.close()
    with pytest.raises(TfdrlError, match="parameter server 0 could not reach its own shard for"):
        role.retried(served.tick, 0)
    servers.close()
