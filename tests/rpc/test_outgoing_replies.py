"""Large replies wait for their turn: hundreds of slow readers cost a server no more than a few."""

import asyncio
import contextlib
import os
import pathlib
import socket
import struct
import subprocess
import sys
import time

import numpy as np
import pytest

from tfdrl.rpc import training_pb2
from tfdrl.rpc.outgoing_replies import OutgoingReplies
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.topology import Address

PULLS = """
import os, signal, sys, grpc
from tfdrl.rpc import training_pb2
options = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
channels = [grpc.insecure_channel(sys.argv[1], options) for _ in range(int(sys.argv[2]))]
for channel in channels:
    grpc.channel_ready_future(channel).result(30)
request = training_pb2.ParametersRequest(
    sender=training_pb2.Sender(experiment="digest"), have_version=-1).SerializeToString()
print("connected", flush=True)
sys.stdin.readline()
calls = [c.unary_unary("/tfdrl.v1.Training/GetParameters").future(request, timeout=60)
         for c in channels]
print("asked", flush=True)
codes = [call.code().name for call in calls]
print(codes.count("OK"), flush=True)
"""


class Call:
    """What of a call's context is used: who is told of its end."""

    def __init__(self):
        self._callbacks = []

    def add_done_callback(self, callback):
        self._callbacks.append(callback)

    def end(self):
        for callback in self._callbacks:
            callback(self)


async def admitted(replies, *sizes_bytes):
    """A call and the task that lets it in, of each size, after those that can have come in."""
    calls = [Call() for _ in sizes_bytes]
    tasks = [
        asyncio.ensure_future(replies.admit(size, call)) for size, call in zip(sizes_bytes, calls)
    ]
    await settled()
    return calls, tasks


async def settled():
    for _ in range(5):
        await asyncio.sleep(0)


def are_in(tasks):
    return [task.done() for task in tasks]


def test_replies_wait_in_order_for_bytes_of_those_before():
    async def script():
        replies = OutgoingReplies(most_bytes=100)
        calls, tasks = await admitted(replies, 60, 30, 20, 5)
        assert are_in(tasks) == [True, True, False, False]  # 5 would fit, but 20 came first
        calls[1].end()
        await settled()
        assert are_in(tasks) == [True, True, True, True]
        calls[1].end()  # once more changes nothing: 60 + 20 + 5
        calls, tasks = await admitted(replies, 15, 1)
        assert are_in(tasks) == [True, False]

    asyncio.run(script())


def test_a_reply_that_is_larger_than_all_goes_alone():
    async def script():
        replies = OutgoingReplies(most_bytes=100)
        calls, tasks = await admitted(replies, 1000, 1)
        assert are_in(tasks) == [True, False]
        calls[0].end()
        await settled()
        assert are_in(tasks) == [True, True]

    asyncio.run(script())


@pytest.mark.parametrize("is_its_turn", [False, True])
def test_who_goes_away_while_waiting_takes_nobodys_place(is_its_turn):
    async def script():
        replies = OutgoingReplies(most_bytes=100)
        calls, tasks = await admitted(replies, 100, 100, 100)
        if is_its_turn:
            calls[0].end()  # and is cancelled before it runs
        tasks[1].cancel()
        await settled()
        if not is_its_turn:
            calls[0].end()
            await settled()
        assert tasks[1].cancelled() and tasks[2].done()

    asyncio.run(script())


def test_who_goes_away_at_the_head_lets_those_behind_in():
    async def script():
        replies = OutgoingReplies(most_bytes=100)
        _, tasks = await admitted(replies, 60, 50, 30)
        assert are_in(tasks) == [True, False, False]
        tasks[1].cancel()
        await settled()
        assert are_in(tasks) == [True, True, True]

    asyncio.run(script())


def test_a_reply_that_nobody_takes_holds_the_others_up_for_a_while_only():
    async def script():
        replies = OutgoingReplies(most_bytes=100, longest_secs=0.05)
        _, tasks = await admitted(replies, 100, 100)
        await asyncio.wait_for(tasks[1], 30.0)

    asyncio.run(script())


def test_replies_that_nobody_takes_are_no_more_than_four_times_as_many_bytes():
    async def script():
        replies = OutgoingReplies(most_bytes=100, longest_secs=0.02)
        calls, tasks = await admitted(replies, *[50] * 12)
        await asyncio.wait_for(asyncio.gather(*tasks[:8]), 30.0)
        await asyncio.sleep(0.2)
        assert sum(are_in(tasks)) == 8
        calls[0].end()  # makes room for one that is overdue, and that for another
        await asyncio.wait_for(tasks[8], 30.0)
        for call in calls[1:6]:
            call.end()
        await asyncio.wait_for(asyncio.gather(*tasks), 30.0)
        for call in calls[6:]:
            call.end()
        _, tasks = await admitted(replies, 60, 40, 1)  # all that was held came back, once
        assert are_in(tasks) == [True, True, False]

    asyncio.run(script())


@pytest.fixture
def asking():
    """Starts a process that pulls by many connections, once they are there."""
    started = []

    def start(server, connections):
        command = [sys.executable, "-c", PULLS, str(server.address), str(connections)]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        started.append(subprocess.Popen(command, **pipes, text=True))
        assert started[-1].stdout.readline() == "connected\n"
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def server():
    server = TrainingServer(Address("127.0.0.1", 0), "digest")
    yield server
    server.close(0.0)


def tell(process):
    process.stdin.write("go\n")
    process.stdin.flush()
    assert process.stdout.readline() == "asked\n"


def test_of_300_that_pull_at_once_nobody_is_refused(server, asking):
    server.publish(1, [np.zeros(1 << 18, np.float32)])  # 1 MB: more than may be on its way
    processes = [asking(server, 150) for _ in range(2)]
    for process in processes:
        tell(process)
    assert [int(process.stdout.readline()) for process in processes] == [150, 150]


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="reads /proc")
def test_a_crowd_that_takes_nothing_does_not_fill_the_memory(server):
    server.publish(1, [np.zeros(2 << 20, np.float32)])  # 8 MB for each of 60
    before_mb = resident_mb()
    with contextlib.ExitStack() as connections:
        for _ in range(60):
            connections.enter_context(pull_and_read_nothing(server.address))
        grown_mb = []
        for _ in range(20):
            time.sleep(0.1)
            grown_mb.append(resident_mb() - before_mb)
    assert max(grown_mb) < 300, grown_mb


def pull_and_read_nothing(address):
    """A connection over which parameters are asked for: HTTP/2 lets 64 KB of them come."""
    h2 = pytest.importorskip("h2.connection").H2Connection()
    h2.initiate_connection()
    fields = {":method": "POST", ":scheme": "http", ":authority": address.host}
    fields |= {":path": "/tfdrl.v1.Training/GetParameters", "te": "trailers"}
    h2.send_headers(1, [*fields.items(), ("content-type", "application/grpc")])
    sender = training_pb2.Sender(experiment="digest")
    request = training_pb2.ParametersRequest(sender=sender, have_version=-1).SerializeToString()
    h2.send_data(1, struct.pack("!BI", 0, len(request)) + request, end_stream=True)
    connection = socket.create_connection((address.host, address.port), timeout=5)
    connection.sendall(h2.data_to_send())
    return connection


def resident_mb():
    pages = pathlib.Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6
