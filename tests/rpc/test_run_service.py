"""Learner and roles over real sockets: what is said is what arrives."""

import concurrent.futures
import logging
import threading
import time

import grpc
import numpy as np
import pytest

from tfdrl.errors import EXIT_CONFIGURATION, ConfigurationError, UnavailableError
from tfdrl.rpc import run_client as training_client_lib
from tfdrl.rpc import training_pb2
from tfdrl.rpc.run_client import TrainingClient
from tfdrl.rpc.run_messages import MAX_EPISODES, Evaluation, ReportReply
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.topology import Address
from tfdrl.types import ItemCounts

LOOPBACK = Address("127.0.0.1", 0)
EVALUATION = Evaluation(3, 4000, 19.5, 20.0, 0.5, 12.0, 21.0, episodes=10, seconds=2.5)


@pytest.fixture
def server():
    server = TrainingServer(LOOPBACK, "digest", "obs float32 [4]", max_message_bytes=1 << 20)
    yield server
    server.close()


@pytest.fixture
def connect(server):
    clients = []

    def connect(**arguments):
        arguments = {"experiment": "digest", "role": "actor", "task": 3, "run_id": 1, **arguments}
        clients.append(TrainingClient(server.address, **arguments))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def raw_call(server, method, data, service="tfdrl.v1.Training"):
    with grpc.insecure_channel(str(server.address)) as channel:
        return channel.unary_unary(f"/{service}/{method}")(data, timeout=5)


def parameter_set(version):
    """Every value says of which version it is."""
    return [np.full((100, 10), version, np.float32), np.array(version, np.int64)]


class TestJoin:
    def test_a_role_of_the_same_run(self, connect):
        connect(specs="obs float32 [4]").join(5.0)
        connect(specs="").join(5.0)

    @pytest.mark.parametrize(
        "arguments, texts",
        [
            ({"experiment": "other"}, ["'other'", "'digest'", "same gin file"]),
            ({"experiment": ""}, ["''", "'digest'"]),
            ({"specs": "obs uint8 [4]"}, ["'obs uint8 [4]'", "'obs float32 [4]'"]),
        ],
    )
    def test_mismatch_shows_both_sides(self, connect, arguments, texts):
        with pytest.raises(ConfigurationError) as error:
            connect(**arguments).join(5.0)
        assert error.value.exit_code == EXIT_CONFIGURATION
        for text in ["actor 3", "refused Join", *texts]:
            assert text in str(error.value)

    def test_other_protocol_version(self, server):
        request = training_pb2.JoinRequest(
            sender=training_pb2.Sender(experiment="digest"), protocol_version=99
        )
        with pytest.raises(grpc.RpcError, match="yours is 99, the learner's is 1") as error:
            raw_call(server, "Join", request.SerializeToString())
        assert error.value.code() is grpc.StatusCode.FAILED_PRECONDITION

    def test_long_specs_show_where_they_differ(self):
        common = "".join(f"layer {i}: float32 [512, 512]\n" for i in range(2000))
        ours, theirs = common + "head: float32 [4]\n", common + "head: float32 [18]\n"
        server = TrainingServer(LOOPBACK, "digest", ours + common)
        client = TrainingClient(
            server.address,
            **{"experiment": "digest", "role": "actor", "task": 0, "run_id": 1},
            specs=theirs + common,
        )
        try:
            with pytest.raises(ConfigurationError, match=r"(?s)head: .*\[18\].*head: .*\[4\]"):
                client.join(5.0)
        finally:
            client.close()
            server.close()

    def test_waits_for_the_learner_and_says_so(self, caplog, monkeypatch):
        monkeypatch.setattr(training_client_lib, "_JOIN_LOG_SECS", 0.3)
        free = TrainingServer(LOOPBACK, "digest")
        address = free.address
        free.close()
        client = TrainingClient(address, experiment="digest", role="actor", task=3, run_id=1)
        with caplog.at_level(logging.INFO):
            with concurrent.futures.ThreadPoolExecutor(1) as pool:
                joined = pool.submit(client.join, 20.0)
                time.sleep(1.0)
                assert not joined.done()
                server = TrainingServer(address, "digest")
                joined.result(timeout=10)
        assert f"actor 3 waits for the learner at {address} (" in caplog.text
        assert "s of 20 s)" in caplog.text
        client.close()
        server.close()

    def test_gives_up(self):
        client = TrainingClient(
            Address("127.0.0.1", 9), experiment="digest", role="actor", task=3, run_id=1
        )
        start_secs = time.monotonic()
        with pytest.raises(UnavailableError, match=r"actor 3.*127\.0\.0\.1:9.*within 0\.7 s"):
            client.join(0.7)
        assert time.monotonic() - start_secs < 3
        client.close()

    def test_stops_waiting_when_told(self):
        client = TrainingClient(
            Address("127.0.0.1", 9), experiment="digest", role="actor", task=3, run_id=1
        )
        stop = threading.Event()
        threading.Timer(0.3, stop.set).start()
        start_secs = time.monotonic()
        client.join(60.0, stop)
        assert time.monotonic() - start_secs < 3
        client.close()


class TestParameters:
    def test_none_before_the_first_are_published(self, connect):
        assert connect().parameters(-1) is None

    def test_only_what_the_caller_does_not_have(self, server, connect):
        client = connect()
        server.publish(0, parameter_set(0))
        version, tensors = client.parameters(-1)
        assert version == 0
        for tensor, expected in zip(tensors, parameter_set(0)):
            assert tensor.dtype == expected.dtype and tensor.shape == expected.shape
            np.testing.assert_array_equal(tensor, expected)
        assert client.parameters(0) is None
        server.publish(5, parameter_set(5))
        assert client.parameters(0)[0] == 5

    def test_a_learner_that_was_set_back_by_a_restart_is_followed(self, server, connect):
        server.publish(90, parameter_set(90))
        assert connect().parameters(100)[0] == 90

    def test_published_arrays_are_copied(self, server, connect):
        weights = np.zeros(4, np.float32)
        server.publish(1, [weights])
        weights += 1
        assert connect().parameters(-1)[1][0].tolist() == [0, 0, 0, 0]

    @pytest.mark.parametrize("version", [3, 2])
    def test_versions_grow(self, server, connect, version):
        server.publish(3, parameter_set(3))
        with pytest.raises(ValueError, match=f"version {version} does not follow version 3"):
            server.publish(version, parameter_set(version))
        assert connect().parameters(-1)[1][1] == 3

    def test_a_set_that_cannot_travel_leaves_the_last(self, server, connect):
        server.publish(1, parameter_set(1))
        with pytest.raises(ConfigurationError, match="max_message_bytes is 1048576"):
            server.publish(2, [np.zeros(1 << 20, np.float32)])
        with pytest.raises(ConfigurationError, match="parameter 1 has dtype 'object'"):
            server.publish(2, [np.zeros(1), np.array([None])])
        assert connect().parameters(-1)[0] == 1

    def test_a_set_larger_than_the_client_takes(self, server, connect):
        server.publish(1, [np.zeros(50_000, np.float32)])
        with pytest.raises(ConfigurationError, match="raise max_message_bytes"):
            connect(max_message_bytes=100_000).parameters(-1)

    def test_readers_never_see_half_a_set(self, server, connect):
        server.publish(0, parameter_set(0))
        done = threading.Event()

        def pull(task):
            client, version, seen = connect(task=task), -1, 0
            while not done.is_set():
                answer = client.parameters(version)
                if answer is None:
                    continue
                new_version, (weights, scalar) = answer
                assert new_version > version
                assert scalar == new_version and (weights == new_version).all()
                version, seen = new_version, seen + 1
            return seen

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            pulls = [pool.submit(pull, task) for task in range(4)]
            for version in range(1, 200):
                server.publish(version, parameter_set(version))
                time.sleep(0.005)
            done.set()
            assert min(future.result() for future in pulls) > 10


class TestReport:
    def test_frames_are_cumulative(self, server, connect):
        first, second, restarted = connect(task=0), connect(task=1), connect(task=0, run_id=2)
        assert first.report(frames=100) == ReportReply(False, "", 100)
        assert second.report(frames=50).frames_total == 150
        assert first.report(frames=100).frames_total == 150
        assert restarted.report(frames=10).frames_total == 160
        assert first.report(frames=20).frames_total == 160
        assert server.frames() == 160

    def test_episodes_and_evaluation(self, server, connect):
        server.publish(3, parameter_set(3))
        client = connect()
        client.report(returns=np.array([1.5, -2.0], np.float32), lengths=np.array([10, 400]))
        client.report(returns=[7.0], lengths=[1])
        connect(role="evaluator").report(evaluation=EVALUATION)
        returns, lengths = server.take_episodes()
        assert returns.tolist() == [1.5, -2.0, 7.0] and lengths.tolist() == [10, 400, 1]
        assert server.take_evaluations() == [EVALUATION]
        assert server.take_episodes().returns.size == 0 and server.take_evaluations() == []
        assert server.frames() == 0

    def test_numpy_scalars(self, server, connect):
        server.publish(3, parameter_set(3))
        evaluation = Evaluation(*(np.float32(v) if v % 1 else np.int64(v) for v in EVALUATION))
        connect().report(frames=np.int64(9), metrics={"a": np.float32(0.5)}, evaluation=evaluation)
        assert server.take_evaluations() == [EVALUATION]
        assert server.role_metrics()[("actor", 3)][1] == {"a": 0.5}

    def test_a_report_whose_answer_was_lost_counts_once(self, server, connect, monkeypatch):
        server.publish(3, parameter_set(3))
        client = connect()
        client.report(frames=10, returns=[1.0], lengths=[10])
        received = server._ledger.record

        def slow_record(request):  # the answer comes after the deadline
            received(request)
            time.sleep(0.5)

        monkeypatch.setattr(server._ledger, "record", slow_record)
        repeated = {"frames": 20, "returns": [2.0], "lengths": [20], "evaluation": EVALUATION}
        with pytest.raises(UnavailableError, match=r"actor 3.*limit 0\.2 s.*DEADLINE_EXCEEDED"):
            client.report(**repeated, timeout_secs=0.2)
        monkeypatch.undo()
        client.report(**{**repeated, "returns": [2.0, 3.0], "lengths": [20, 30]})
        assert server.frames() == 20
        assert server.take_episodes().returns.tolist() == [1.0, 2.0, 3.0]
        assert server.take_evaluations() == [EVALUATION]

    def test_more_episodes_than_one_report_holds(self, server, connect, caplog):
        client = connect()
        returns = np.arange(MAX_EPISODES + 2, dtype=np.float32)
        client.report(returns=returns, lengths=np.ones(len(returns), np.int64))
        client.report(returns=[-1.0], lengths=[1])
        assert "leaves out 2 of" in caplog.text
        np.testing.assert_array_equal(server.take_episodes().returns, [*returns[2:], -1.0])

    def test_stop(self, server, connect):
        assert not connect().report().stop
        server.finish("all 1000 frames done")
        server.finish("something else")
        assert connect(task=9).report() == ReportReply(True, "all 1000 frames done", 0)

    def test_everybody_left_when_each_was_told_and_has_reported_its_last(self, server, connect):
        assert server.everybody_left()
        first, second, third = (connect(task=task) for task in range(3))
        first.report(frames=10)
        second.report(frames=10)
        third.join(5.0)  # and reports later
        assert not server.everybody_left()
        server.finish("done")
        for client in (first, second, third):
            client.report(frames=20)
            assert not server.everybody_left()
        first.report(frames=30)
        second.report(frames=30)
        assert not server.everybody_left()
        time.sleep(0.2)
        assert server.everybody_left(recent_secs=0.1)  # the third one is gone
        third.report(frames=30)
        assert server.everybody_left()

    def test_items_of_all_roles_and_of_the_learner(self, server, connect):
        first, second = connect(task=0), connect(task=1)
        assert first.report(items=ItemCounts(100, 0)).items == ItemCounts(100, 0)
        server.count_sampled(64)
        assert second.report(items=ItemCounts(50, 8)).items == ItemCounts(150, 72)
        assert first.report(items=ItemCounts(100, 0)).items == ItemCounts(150, 72)
        assert server.items() == ItemCounts(150, 72)
        assert server.count_for_ratio(8.0, inserted=10)
        assert first.report(items=ItemCounts(101, 0)).items == ItemCounts(11, 0)

    def test_counters_survive_the_learner(self, server, connect):
        connect(task=0).report(frames=100)
        successor = TrainingServer(LOOPBACK, "digest", state=server.state(), learner_step=7)
        client = TrainingClient(
            successor.address, experiment="digest", role="actor", task=0, run_id=1
        )
        status = client.status()
        assert (status.frames, status.learner_step) == (100, 7)
        assert client.report(frames=130).frames_total == 130
        client.close()
        successor.close()

    def test_nothing_is_counted_after_the_last_checkpoint(self, server, connect):
        """A status would show counts that the next learner does not know of yet."""
        client = connect(task=0)
        client.report(frames=100)
        state = server.state(is_last=True)
        with pytest.raises(UnavailableError, match="the last checkpoint is being written"):
            client.report(frames=130, timeout_secs=0.5)
        assert connect(experiment="").status().frames == 100
        server.finish("solved")  # now who comes late is told to stop, and not counted
        reply = client.report(frames=130)
        assert reply.stop and reply.frames_total == 100
        successor = TrainingServer(LOOPBACK, "digest", state=state)
        assert successor.frames() == 100
        successor.close()


class TestStatus:
    def test_everything(self, server, connect):
        server.publish(3, parameter_set(3))
        server.publish(7, parameter_set(7))
        server.set_status(np.int64(42), {"loss": np.float32(0.25)})
        server.set_doing("tracing the training step")
        connect().report(frames=12, metrics={"frames_per_second": 99.0, "loss": float("nan")})
        connect(role="evaluator", task=0).report(evaluation=EVALUATION)
        status = connect(experiment="").status()
        assert (status.experiment, status.learner_step, status.frames) == ("digest", 42, 12)
        assert (status.version, status.metrics) == (7, {"loss": 0.25})
        assert (status.finished, status.reason) == (False, "")
        assert status.doing == "tracing the training step"
        assert status.evaluation == EVALUATION
        assert [(r.role, r.task, r.run_id) for r in status.roles] == [
            ("actor", 3, 1),
            ("evaluator", 0, 1),
        ]
        assert status.roles[0].metrics["frames_per_second"] == 99.0
        assert np.isnan(status.roles[0].metrics["loss"])
        assert 0 <= status.roles[0].seconds_since_report < 5
        server.finish("done")
        status = connect().status()
        assert (status.finished, status.reason) == (True, "done")

    def test_before_anything_happened(self, connect):
        status = connect().status()
        assert (status.version, status.evaluation, status.roles) == (-1, None, [])


def test_calls_on_a_closed_client(connect):
    client = connect()
    client.close()
    with pytest.raises(UnavailableError, match="is closed"):
        client.report()


def test_health(server):
    check = "grpc.health.v1.Health"
    serving = b"\x08\x01"
    assert raw_call(server, "Check", b"", check) == serving
    named = b"\x0a\x11tfdrl.v1.Training"
    assert raw_call(server, "Check", named, check) == serving
    with pytest.raises(grpc.RpcError) as error:
        raw_call(server, "Check", b"\x0a\x05other", check)
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
