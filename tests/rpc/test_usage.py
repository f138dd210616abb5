"""Bytes, messages, cores and memory of a process, as it counts them itself."""

import json
import socket
import sys
import time

import pytest

from tfdrl.rpc import usage, usage_log
from tfdrl.rpc.usage import Flow, ProcessUsage, Usage
from tfdrl.topology import Address, Context

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux's /proc and TCP options")


def _receive(connection, count):
    while count:
        count -= len(connection.recv(count))


def test_bytes_are_those_of_the_connections_to_each_role():
    with (
        socket.create_server(("127.0.0.1", 0)) as learner,
        socket.create_server(("127.0.0.1", 0)) as replay,
    ):
        ports = [server.getsockname()[1] for server in (learner, replay)]
        addresses = [Address(host, port) for host, port in zip(("localhost", "127.0.0.1"), ports)]
        peers = dict(zip(("learner", "replay"), addresses))
        mine = ProcessUsage(peers)
        before = mine.look().flows
        assert before == {"learner": Flow(), "replay": Flow()}
        with socket.create_connection(("127.0.0.1", ports[0])) as ours, learner.accept()[0] as its:
            ours.sendall(b"x" * 70_000)
            _receive(its, 70_000)
            its.sendall(b"y" * 9_000)
            _receive(ours, 9_000)
            usage.count_messages(peers["learner"], 3)
            time.sleep(0.05)  # the last acknowledgement
            found = mine.look().flows
            sent, received, messages = found["learner"]
            assert 70_000 <= sent <= 70_001 and received == 9_000  # the SYN counts as one
            assert messages == 3 and found["replay"] == Flow()
        # What was closed stays counted, and a new connection is added to it.
        with socket.create_connection(("127.0.0.1", ports[0])) as ours, learner.accept()[0] as its:
            ours.sendall(b"x" * 1_000)
            _receive(its, 1_000)
            time.sleep(0.05)
            assert 71_000 <= mine.look().flows["learner"].sent_bytes <= 71_002


def test_a_server_counts_its_clients_together():
    with socket.create_server(("127.0.0.1", 0)) as server:
        mine = ProcessUsage({}, Address("127.0.0.1", server.getsockname()[1]))
        with socket.create_connection(server.getsockname()) as client, server.accept()[0] as its:
            client.sendall(b"x" * 500)
            _receive(its, 500)
            assert mine.look().flows[usage.CLIENTS].received_bytes == 500


def test_rates_are_those_between_two_looks():
    first = Usage(100.0, 5.0, 80.0, {"replay": Flow(1_000_000, 0, 10)})
    second = Usage(102.0, 6.0, 90.0, {"replay": Flow(3_000_000, 500_000, 50)})
    assert second.metrics(first) == {
        "process/cpu_cores": 0.5,
        "process/memory_mb": 90.0,
        "traffic/replay_sent_mb_per_second": 1.0,
        "traffic/replay_received_mb_per_second": 0.25,
        "traffic/replay_messages_per_second": 20.0,
    }


def test_rates_do_not_change_when_the_clock_is_set(monkeypatch):
    used, now_secs = ProcessUsage({}), time.time()
    looks = [used.look()]
    for offset_secs in (-3600.0, 3600.0):
        monkeypatch.setattr(time, "time", lambda offset_secs=offset_secs: now_secs + offset_secs)
        looks.append(used.look())
        assert 0 < looks[-1].secs - looks[-2].secs < 60


def test_a_role_leaves_a_log_of_each_start(tmp_path):
    context = Context("actor", 3, 4, tmp_path)
    with usage_log.kept(context, {"learner": Address("localhost", 9)}):
        begin = time.process_time()
        while time.process_time() - begin < 0.2:
            pass
    path = tmp_path / "usage" / "actor-3.jsonl"
    ((*_, last),) = usage_log.read(path)
    assert last.cpu_secs >= 0.2 and last.memory_mb > 5.0 and set(last.flows) == {"learner"}
    assert usage_log.metrics()["process/cpu_cores"] > 0.0
    row = json.loads(path.read_text().splitlines()[-1])
    path.write_text("".join(json.dumps({**row, "pid": pid}) + "\n" for pid in (7, 7, 8)) + '{"pid"')
    assert [len(looks) for looks in usage_log.read(path)] == [2, 1]


def test_one_of_many_logs_more_rarely(tmp_path, monkeypatch):
    for name, value in (("_FIRST_SECS", 0.02), ("_GROWTH", 10.0), ("_LONGEST_SECS", 0.05)):
        monkeypatch.setattr(usage_log, name, value)
    for replicas in (50, 1000):
        context = Context("actor", 0, replicas, tmp_path / str(replicas))
        context.root_dir.mkdir()
        path, begin_secs = context.root_dir / "usage" / "actor-0.jsonl", time.monotonic()
        with usage_log.kept(context, {}):
            while sum(map(len, usage_log.read(path))) < 4:
                assert time.monotonic() - begin_secs < 30.0
                time.sleep(0.01)
        passed_secs = time.monotonic() - begin_secs
    # One of a thousand: after 0.02 s, 0.2 s more, then each second, and at the end.
    assert context.log_period_secs(0.05) == pytest.approx(1.0)
    ((*looks,),) = usage_log.read(path)
    assert len(looks) <= 3 + passed_secs


def test_a_look_is_cheap():
    """Of a learner with a hundred connections: under 1 % of a core at a look each second."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        mine = ProcessUsage({}, Address("127.0.0.1", server.getsockname()[1]))
        place = server.getsockname()
        pairs = [(socket.create_connection(place), server.accept()[0]) for _ in range(50)]
        mine.look()
        begin_secs = time.process_time()
        for _ in range(20):
            mine.look()
        took_secs = (time.process_time() - begin_secs) / 20
        for pair in pairs:
            for connection in pair:
                connection.close()
    assert took_secs < 0.01, took_secs
