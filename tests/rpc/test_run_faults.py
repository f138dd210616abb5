"""The training service among broken, stopped, restarted and numerous peers."""

import gc
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent import futures

import grpc
import numpy as np
import pytest

from tfdrl.errors import ConfigurationError, UnavailableError
from tfdrl.rpc import channels, training_pb2
from tfdrl.rpc.run_client import TrainingClient
from tfdrl.rpc.run_messages import Evaluation
from tfdrl.rpc.run_server import MoreServices, TrainingServer
from tfdrl.topology import Address

LOOPBACK = Address("127.0.0.1", 0)
SENDER = training_pb2.Sender(experiment="digest", role="actor", task=1, run_id=2)
GOOD = Evaluation(1, 1, 0.0, 0.0, 0.0, 0.0, 0.0, 1, 1.0)

LEARNER = """
import sys, time, numpy as np
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.topology import Address
server = TrainingServer(Address("127.0.0.1", int(sys.argv[1])), "digest")
server.publish(int(sys.argv[2]), [np.full(1000, int(sys.argv[2]), np.float32)])
print(server.address.port, flush=True)
time.sleep(120)
"""

CROWD = """
import sys, grpc
from tfdrl.rpc import training_pb2
channels = [
    grpc.insecure_channel(sys.argv[1], options=[
        ("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)])
    for _ in range(int(sys.argv[2]))
]
request = training_pb2.ParametersRequest(
    sender=training_pb2.Sender(experiment="digest"), have_version=-1).SerializeToString()
calls = [c.unary_unary("/tfdrl.v1.Training/GetParameters").future(request, timeout=60)
         for c in channels]
codes = [call.code().name for call in calls]
print(codes.count("OK"), codes.count("RESOURCE_EXHAUSTED"), flush=True)
sys.stdin.read()
"""


def start(script, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True},
    )


def new_client(address, **arguments):
    arguments = {"experiment": "digest", "role": "actor", "task": 3, "run_id": 1, **arguments}
    return TrainingClient(address, **arguments)


def retry(call, limit_secs):
    """What roles do: the answer of `call` as soon as there is one."""
    start_secs = time.monotonic()
    while True:
        try:
            return call()
        except UnavailableError:
            if time.monotonic() - start_secs > limit_secs:
                raise
            time.sleep(0.1)


@pytest.fixture
def server():
    server = TrainingServer(LOOPBACK, "digest")
    yield server
    server.close()


def raw_call(server, method, data, **options):
    with grpc.insecure_channel(str(server.address), **options) as channel:
        return channel.unary_unary(f"/tfdrl.v1.Training/{method}")(data, timeout=10)


def refusal(server, method, message):
    data = message if isinstance(message, bytes) else message.SerializeToString()
    with pytest.raises(grpc.RpcError) as error:
        raw_call(server, method, data)
    return error.value.code().name, error.value.details()


def report(**fields):
    episodes = {k: fields.pop(k) for k in ("returns", "length_frames") if k in fields}
    if "evaluation" in fields:
        changed = GOOD._replace(**fields["evaluation"])
        fields["evaluation"] = training_pb2.Evaluation(**changed._asdict())
    return training_pb2.ReportRequest(
        **{"sender": SENDER, "frames": 50, "metrics": {"bad": 1.0}, **fields},
        episodes=training_pb2.Episodes(**episodes),
    )


NAMELESS = training_pb2.Sender(experiment="digest")
BAD_REPORTS = {
    "negative frames": ({"frames": -1}, "frames is -1"),
    "more frames than there are": ({"frames": 2**46 + 1}, "to 70368744177664 at most"),
    "negative items": ({"items_inserted": -1}, "items_inserted is -1"),
    "more items than there are": ({"items_inserted": 2**62}, "items_inserted is 4611686"),
    "negative samples": ({"items_sampled": -2}, "items_sampled is -2"),
    "more samples than there are": ({"items_sampled": 2**46 + 1}, "70368744177664 at most"),
    "no role": ({"sender": NAMELESS}, "role '' has 0 characters"),
    "NaN return": ({"returns": [1.0, np.nan], "length_frames": [1, 1]}, "not a finite number"),
    "infinite return": ({"returns": [np.inf], "length_frames": [1]}, "not a finite number"),
    "lengths missing": ({"returns": [1.0, 2.0], "length_frames": [1]}, "2 episode returns but 1"),
    "returns missing": ({"length_frames": [1]}, "0 episode returns but 1"),
    "empty episode": ({"returns": [1.0], "length_frames": [0]}, "length is 0 frames"),
    "NaN evaluation": ({"evaluation": {"mean": np.nan}}, "evaluation.mean is nan"),
    "infinite evaluation": ({"evaluation": {"max": np.inf}}, "evaluation.max is inf"),
    "negative episodes": ({"evaluation": {"episodes": -1}}, "evaluation.episodes is -1"),
    "mean above all": ({"evaluation": {"mean": 1e9}}, "mean is 1e+09, and not between min and max"),
    "median below all": ({"evaluation": {"median": -1.0}}, "median is -1, and not between"),
    "endless episode": ({"returns": [1.0], "length_frames": [2**62]}, "episode of 4611686018427"),
    "more frames than can be": ({"frames": 2**46}, "frames grew by 70,368,744,177,664 since"),
    "long metric": ({"metrics": {"x" * 65: 1.0}}, "has 65 characters"),
    "many metrics": ({"metrics": {str(i): 1.0 for i in range(65)}}, "65 metrics"),
    "many episodes": (
        {"returns": [0.0] * (2**18 + 1), "length_frames": [1] * (2**18 + 1)},
        "at most 262144",
    ),
}


class TestMalformed:
    @pytest.fixture(autouse=True)
    def state_is_untouched(self, server):
        """Whatever is refused, what was counted before is all there is afterwards."""
        server.publish(1, [np.zeros(3)])
        client = new_client(server.address)
        client.report(frames=7, metrics={"good": 1.0}, returns=[5.0], lengths=[5])
        state, roles = server.state(), server.role_metrics().keys()
        yield
        assert server.state() == state and server.frames() == 7
        assert server.role_metrics().keys() == roles
        assert server.role_metrics()[("actor", 3)][1] == {"good": 1.0}
        assert server.take_episodes().returns.tolist() == [5.0]
        assert server.take_evaluations() == []
        assert client.parameters(-1)[0] == 1
        client.close()

    @pytest.mark.parametrize("name", BAD_REPORTS)
    def test_report(self, server, name):
        fields, text = BAD_REPORTS[name]
        code, details = refusal(server, "Report", report(**fields))
        assert code == "INVALID_ARGUMENT" and text in details

    @pytest.mark.parametrize("method", ["Join", "GetParameters", "Report", "Status"])
    def test_random_bytes(self, server, method):
        code, details = refusal(server, method, b"\xff" * 100)
        assert code == "INVALID_ARGUMENT" and "100 bytes that are not a tfdrl.v1." in details
        generator = random.Random(0)
        for _ in range(50):
            data = generator.randbytes(generator.randrange(1, 200))
            if method == "Status":  # answers strangers too
                continue
            code, _ = refusal(server, method, data)
            assert code in ("INVALID_ARGUMENT", "FAILED_PRECONDITION")

    def test_refusals_leave_no_calls_on_their_connection(self, server):
        """Which has few, and would be refused another one until garbage is collected."""
        gc.collect()
        gc.disable()
        try:
            with grpc.insecure_channel(str(server.address)) as channel:
                method = channel.unary_unary("/tfdrl.v1.Training/Report")
                for _ in range(3 * channels.MAX_STREAMS):
                    with pytest.raises(grpc.RpcError) as error:
                        method(b"\xff" * 100, timeout=10)
                    assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        finally:
            gc.enable()

    def test_oversize(self, server):
        code, details = refusal(server, "Report", b"\0" * (100 << 20))
        assert code == "RESOURCE_EXHAUSTED" and "larger than max" in details

    @pytest.mark.parametrize("method", ["GetParameters", "Report", "Status"])
    def test_another_experiment(self, server, method):
        client = new_client(server.address, experiment="other")
        call = {
            "GetParameters": lambda: client.parameters(-1),
            "Report": lambda: client.report(frames=10**9, returns=[1.0], lengths=[1]),
            "Status": client.status,
        }[method]
        with pytest.raises(ConfigurationError, match=r"(?s)'other'.*'digest'"):
            call()
        client.close()

    @pytest.mark.parametrize(
        "arguments, text",
        [
            ({"frames": float("nan")}, "NaN"),
            ({"frames": 1 << 63}, "actor 3 cannot send its report"),
            ({"frames": -1}, "frames is -1"),
            ({"returns": [1.0], "lengths": []}, r"both must be \[k\]"),
            ({"returns": [float("nan")], "lengths": [1]}, "not a finite number"),
            ({"metrics": {"x": "high"}}, "actor 3 cannot send its report"),
        ],
    )
    def test_from_our_own_client(self, server, arguments, text):
        client = new_client(server.address)
        with pytest.raises(ConfigurationError, match=text):
            client.report(**arguments)
        client.close()


@pytest.mark.parametrize("arguments", [{"run_id": -1}, {"run_id": 1 << 64}, {"task": -1}])
def test_a_client_that_cannot_be(arguments):
    with pytest.raises(ConfigurationError, match="below 2\\*\\*64"):
        new_client(LOOPBACK, **arguments)


def test_another_service_on_the_port():
    other = grpc.server(futures.ThreadPoolExecutor(1))
    port = other.add_insecure_port("127.0.0.1:0")
    other.start()
    client = new_client(Address("127.0.0.1", port))
    with pytest.raises(ConfigurationError, match="does not know Join; is another service"):
        client.join(5.0)
    client.close()
    other.stop(None)


def test_no_learner_fails_at_once_and_names_both():
    client = new_client(Address("127.0.0.1", 9))
    for call in (client.report, client.status, lambda: client.parameters(-1)):
        start_secs = time.monotonic()
        with pytest.raises(UnavailableError, match=r"actor 3: .*127.0.0.1:9.*limit \d+ s"):
            call()
        assert time.monotonic() - start_secs < 3
    client.close()


def test_the_same_client_survives_a_learner_that_is_killed_and_started_again():
    first = start(LEARNER, 0, 50)
    port = int(first.stdout.readline())
    client = new_client(Address("127.0.0.1", port))
    client.join(10.0)
    assert client.report(frames=100).frames_total == 100
    assert client.parameters(-1)[0] == 50
    first.kill()
    first.wait()
    with pytest.raises(UnavailableError):
        client.report(frames=110)
    second = start(LEARNER, port, 40)
    try:
        assert int(second.stdout.readline()) == port
        reply = retry(lambda: client.report(frames=120), limit_secs=6)
        assert reply.frames_total == 120
        assert client.parameters(50)[0] == 40
    finally:
        second.kill()
        second.wait()
        client.close()


@pytest.fixture
def stopped_learner():
    """The process of a learner that is stopped after its client has joined, and the client."""
    learner = start(LEARNER, 0, 1)
    client = new_client(Address("127.0.0.1", int(learner.stdout.readline())))
    client.join(10.0)
    os.kill(learner.pid, signal.SIGSTOP)
    yield learner, client
    learner.kill()
    learner.wait()
    client.close()


def test_a_stopped_learner_holds_no_call_beyond_its_deadline(stopped_learner):
    learner, client = stopped_learner
    calls = (
        lambda: client.report(timeout_secs=0.5),
        lambda: client.parameters(-1, timeout_secs=0.5),
        lambda: client.status(timeout_secs=0.5),
        lambda: client.join(0.5),
    )
    for call in calls:
        start_secs = time.monotonic()
        with pytest.raises(UnavailableError, match="DEADLINE_EXCEEDED"):
            call()
        assert 0.4 < time.monotonic() - start_secs < 4.5, "as long as without a deadline"
    os.kill(learner.pid, signal.SIGCONT)
    client.join(20.0)


def test_a_stopped_learner_is_noticed_before_a_long_deadline(monkeypatch, request):
    # A tenth of the usual times, which are long for a test.
    for name in ("KEEPALIVE_SECS", "KEEPALIVE_TIMEOUT_SECS", "PING_TIMEOUT_SECS"):
        monkeypatch.setattr(channels, name, getattr(channels, name) / 10)
    _, client = request.getfixturevalue("stopped_learner")
    start_secs = time.monotonic()
    with pytest.raises(UnavailableError):
        client.report(timeout_secs=60.0)
    assert time.monotonic() - start_secs < 30


def resources():
    with open("/proc/self/status") as status:
        resident_kb = next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))
    return threading.active_count(), len(os.listdir("/proc/self/fd")), resident_kb / 1024


def settled(before, limit_secs=15.0):
    """The resources in use, as soon as threads and descriptors are back where they were."""
    start_secs = time.monotonic()
    while True:
        now = resources()
        if (now[0] <= before[0] and now[1] <= before[1]) or (
            time.monotonic() - start_secs > limit_secs
        ):
            return now
        time.sleep(0.1)


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="reads /proc")
def test_a_crowd_of_200_connections_twice():
    server = TrainingServer(LOOPBACK, "digest", max_concurrent_rpcs=16)
    server.publish(1, [np.zeros(1 << 18, np.float32)])  # 1 MB: 200 MB if replies stayed

    def crowd():
        children = [start(CROWD, server.address, 100) for _ in range(2)]
        counts = [list(map(int, child.stdout.readline().split())) for child in children]
        connected = len(os.listdir("/proc/self/fd"))
        for child in children:
            child.communicate("")
        served, refused = np.sum(counts, axis=0)
        assert served + refused == 200 and served >= 16
        return connected

    try:
        before = None
        for _ in range(3):  # the first one fills the pool of threads and the allocator
            connected = crowd()
            if before is None:
                before = settled((64, 64, 0))
                continue
            assert connected >= before[1] + 200
            after = settled(before)
            assert after[0] <= before[0] and after[1] <= before[1], (before, after)
            assert after[2] < before[2] + 40, (before, after)
        client = new_client(server.address)
        assert client.parameters(-1)[0] == 1
        client.close()
    finally:
        server.close()


def test_calls_beyond_the_limit_are_refused_and_may_try_again():
    async def hold(_, context):
        await context.write(b"held")
        await context.read()

    holder = {"Hold": grpc.stream_stream_rpc_method_handler(hold)}
    more = MoreServices({"test.Holder": holder})
    server = TrainingServer(LOOPBACK, "digest", max_concurrent_rpcs=2, more=more)
    client = new_client(server.address)
    stay = threading.Event()
    try:
        with grpc.insecure_channel(str(server.address)) as channel:
            method = channel.stream_stream("/test.Holder/Hold")
            held = [method(itertools.chain([b"in"], iter(stay.wait, True))) for _ in range(2)]
            for call in held:  # all that the server takes
                assert next(call) == b"held"
            for _ in range(4):
                with pytest.raises(UnavailableError, match="RESOURCE_EXHAUSTED"):
                    client.report(frames=1)
            for call in held:
                call.cancel()
        # gRPC frees the place a moment after the end of a call.
        retry(lambda: client.report(frames=1), limit_secs=5)
        assert server.frames() == 1
    finally:
        stay.set()
        client.close()
        server.close()


def test_close_ends_the_threads():
    before = set(threading.enumerate())
    server = TrainingServer(LOOPBACK, "digest")
    client = new_client(server.address)
    client.report()
    assert set(threading.enumerate()) - before
    client.close()
    server.close()
    server.close()
    deadline_secs = time.monotonic() + 5
    while set(threading.enumerate()) - before and time.monotonic() < deadline_secs:
        time.sleep(0.05)
    assert not set(threading.enumerate()) - before
