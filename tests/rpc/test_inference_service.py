"""The inference service over real sockets: an actor's stream, and messages from strangers."""

import asyncio
import contextlib
import dataclasses
import itertools
import os
import pathlib
import socket
import subprocess
import sys
import threading
import time

import certificates
import grpc
import numpy as np
import pytest

from tfdrl.errors import ConfigurationError, UnavailableError
from tfdrl.rpc import admission, inference_pb2, protobuf_views, tensors, training_pb2
from tfdrl.rpc.environment_specs import EnvironmentSpecs, flatten, pack, specs_to_message
from tfdrl.rpc.inference_client import ActorStoppedError, InferenceClient, LearnerRestartedError
from tfdrl.rpc.inference_messages import (
    PROTOCOL_VERSION,
    Steps,
    StepsEncoder,
    StepsValidator,
    check_order,
    parse_request,
)
from tfdrl.rpc.inference_server import InferenceService, TrainingIsOver
from tfdrl.rpc.run_server import TrainingServer
from tfdrl.rpc.security import Security
from tfdrl.topology import Address
from tfdrl.types import FIRST, LAST, MID, ArraySpec, Episodes, TimeSteps

_N = 3
_SPECS = EnvironmentSpecs(
    observation=(
        ArraySpec((2,), np.dtype(np.float32), name="position"),
        ArraySpec((4, 4), np.dtype(np.uint8), 0, 255, "screen"),
    ),
    action=(ArraySpec((), np.dtype(np.int32), 0, 4),),
    frame_stack=1,
    observation_nest={
        "screen": ArraySpec((4, 4), np.dtype(np.uint8), 0, 255, "screen"),
        "position": ArraySpec((2,), np.dtype(np.float32), name="position"),
    },
    action_nest=ArraySpec((), np.dtype(np.int32), 0, 4),
)
_NOTHING = Episodes(np.zeros(0, np.float32), np.zeros(0, np.int64))


class Echo:
    """A player whose actions are the step's index plus the first pixel of each screen."""

    def __init__(self):
        self.seats, self.is_over = [], False

    def join(self, hello):
        self.seats.append(EchoSeat(self, hello))
        return self.seats[-1]


class EchoSeat:
    def __init__(self, player, hello):
        self.player, self.hello = player, hello
        self.next_index, self.has_left, self.messages = 0, False, []

    async def act(self, index, steps, message):
        if self.player.is_over:
            raise TrainingIsOver("done")
        self.messages.append(message)
        return [(index + steps.observation[1][:, 0, 0]).astype(np.int32)]

    def leave(self):
        self.has_left = True


@pytest.fixture
def player():
    return Echo()


@pytest.fixture
def server(player):
    service = InferenceService(player, "digest", _SPECS)
    server = TrainingServer(Address("127.0.0.1", 0), "digest", more=service.served_for(8))
    yield server
    server.close()


@pytest.fixture
def connect(server):
    clients = []

    def connect(**arguments):
        settings = {"experiment": "digest", "task": 1, "environments": _N, "specs": _SPECS}
        settings.update(timeout_secs=5.0, stop=threading.Event())
        address = arguments.pop("address", server.address)
        clients.append(InferenceClient(address, **{**settings, **arguments}))
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


def steps_at(t, environments=_N):
    screens = np.zeros((environments, 4, 4), np.uint8)
    screens[:, 0, 0] = 10 * np.arange(environments)
    return TimeSteps(
        np.full(environments, MID if t else FIRST, np.int32),
        np.full(environments, 0.5 * t, np.float32),
        np.ones(environments, np.float32),
        {"screen": screens, "position": np.full((environments, 2), t, np.float32)},
    )


def hello(**changes):
    message = inference_pb2.Hello(
        sender=training_pb2.Sender(experiment="digest", role="actor", run_id=7),
        protocol_version=PROTOCOL_VERSION,
        environments=_N,
    )
    specs_to_message(_SPECS, message)
    for name, value in changes.items():
        setattr(message, name, value)
    return inference_pb2.ActRequest(hello=message)


def encode(t, frames=0, steps=None, specs=_SPECS):
    encoder = StepsEncoder(specs, _N)
    return encoder.encode(t, steps_at(t) if steps is None else steps, frames, None)


def step_message(t=0, **changes):
    data = encode(t)
    message = inference_pb2.ActRequest.FromString(data).steps
    for name, value in changes.items():
        if name == "observation":
            del message.observation[:]
            message.observation.extend(value)
        else:
            getattr(message, name).CopyFrom(tensors.encode(value))
    return inference_pb2.ActRequest(steps=message)


def talk(server, *requests):
    """Sends bytes or messages on a stream of the bare stub; the replies."""
    sent = [r if isinstance(r, bytes) else r.SerializeToString() for r in requests]
    with grpc.insecure_channel(str(server.address)) as channel:
        call = channel.stream_stream("/tfdrl.v1.Inference/Act")
        found = call(iter(sent), timeout=10)
        return [inference_pb2.ActReply.FromString(data) for data in found]


def test_steps_up_and_actions_down(connect, player):
    client = connect()
    for t in range(5):
        action = client.act(steps_at(t), 12 * t, _NOTHING)
        assert action.dtype == np.int32 and action.tolist() == [t, t + 10, t + 20]
    (seat,) = player.seats
    assert (seat.hello.first_environment, seat.hello.environments) == (_N, _N)
    assert [message.frames for message in seat.messages] == [0, 12, 24, 36, 48]
    client.close()
    for _ in range(50):
        if seat.has_left:
            break
        time.sleep(0.1)
    assert seat.has_left


def test_a_stream_is_encrypted_and_has_the_token(player, tmp_path):
    certificates.make_all(tmp_path)
    service = InferenceService(player, "digest", _SPECS).served_for(8)

    def files(name):
        made = [str(tmp_path / file) for file in (f"{name}.pem", f"{name}.key", "ours.pem")]
        return Security.from_files(*made, str(tmp_path / "token"), {})

    server = TrainingServer(
        Address("127.0.0.1", 0), "digest", more=service, security=files("learner")
    )
    told = {"experiment": "digest", "task": 0, "environments": _N, "specs": _SPECS}
    told.update(timeout_secs=10.0, stop=threading.Event())
    mine = files("actor")
    client = InferenceClient(server.address, security=mine, **told)
    other = dataclasses.replace(mine, token="x" * 32)
    stranger = InferenceClient(server.address, security=other, **told)
    try:
        assert client.act(steps_at(0), 0, _NOTHING).tolist() == [0, 10, 20]
        with pytest.raises(ConfigurationError, match="the token is missing or wrong"):
            stranger.act(steps_at(0), 0, _NOTHING)
    finally:
        client.close()
        stranger.close()
        server.close()


def test_an_actor_of_another_language_needs_the_proto_only(server):
    """Generated messages and a bare stub: nothing of tfdrl's client; its experiment is empty."""
    first = hello()
    first.hello.sender.experiment = ""
    replies = talk(server, first, step_message(0), step_message(1))
    assert [reply.WhichOneof("content") for reply in replies] == ["welcome", "actions", "actions"]
    assert tensors.decode(replies[2].actions.action[0]).tolist() == [1, 11, 21]


def test_health_and_reflection_answer(server):
    from google.protobuf import descriptor_pool
    from grpc_health.v1 import health_pb2, health_pb2_grpc
    from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
        ProtoReflectionDescriptorDatabase,
    )

    with grpc.insecure_channel(str(server.address)) as channel:
        request = health_pb2.HealthCheckRequest(service="tfdrl.v1.Inference")
        reply = health_pb2_grpc.HealthStub(channel).Check(request, timeout=5)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
        database = ProtoReflectionDescriptorDatabase(channel)
        assert {"tfdrl.v1.Inference", "tfdrl.v1.Training"} <= set(database.get_services())
        pool = descriptor_pool.DescriptorPool(database)
        (method,) = pool.FindServiceByName("tfdrl.v1.Inference").methods
        assert method.name == "Act" and method.input_type.full_name == "tfdrl.v1.ActRequest"


_NAN = np.array([0.0, np.nan, 0.0], np.float32)
_POSITION = tensors.encode(np.zeros((_N, 2), np.float32))


def long_hello(specs):
    """Says that an observation has so many arrays."""
    request = hello()
    request.hello.observation.extend([inference_pb2.ArraySpec(dtype="uint8", shape=[1])] * specs)
    return request


_SCREEN = tensors.encode(np.zeros((_N, 4, 4), np.uint8))


@pytest.mark.parametrize(
    ("requests", "code", "words"),
    [
        ([b"\xff\xfe garbage"], "INVALID_ARGUMENT", "bytes that are not a tfdrl.v1.ActRequest"),
        ([step_message()], "INVALID_ARGUMENT", "a stream begins with Hello"),
        ([hello(), hello()], "INVALID_ARGUMENT", "after Hello a stream has Steps only"),
        ([hello(protocol_version=99)], "FAILED_PRECONDITION", "the actor's is 99, the learner's"),
        ([hello(frame_stack=4)], "FAILED_PRECONDITION", "the newest of 4 stacked frames travels"),
        (
            [hello(), step_message(reward=_NAN)],
            *("INVALID_ARGUMENT", "reward has a number that is not finite"),
        ),
        (
            [hello(), step_message(reward=np.zeros(_N))],
            *("INVALID_ARGUMENT", "reward is float64; expected float32"),
        ),
        (
            [hello(), step_message(reward=np.zeros(_N + 1, np.float32))],
            *("INVALID_ARGUMENT", "reward has shape (4,); expected (3,)"),
        ),
        (
            [hello(), step_message(step_type=np.full(_N, 3, np.uint8))],
            *("INVALID_ARGUMENT", "a step_type is 3"),
        ),
        (
            [hello(), step_message(discount=np.full(_N, 1.5, np.float32))],
            *("INVALID_ARGUMENT", "a discount is outside 0 to 1"),
        ),
        (
            [hello(), step_message(observation=[_POSITION])],
            *("INVALID_ARGUMENT", "1 observation arrays; expected 2"),
        ),
        (
            [hello(), step_message(observation=[_SCREEN, _POSITION])],
            *("INVALID_ARGUMENT", "observation 0 is uint8; expected float32"),
        ),
        (
            [hello(), step_message(observation=[_POSITION, _POSITION])],
            *("INVALID_ARGUMENT", "observation 1 is float32; expected uint8"),
        ),
        ([long_hello(80_000)], "INVALID_ARGUMENT", "begins with Hello, of at most 4176 bytes"),
        ([long_hello(200)], "FAILED_PRECONDITION", "specs mismatch"),
        ([b"\x12\x04" + bytes(1 << 20)], "INVALID_ARGUMENT", "1048578 bytes came"),
        ([hello(), b"\x08\x01" * 1001], "INVALID_ARGUMENT", "more than 1000 fields"),
        (
            [hello(), b"\x12" + bytes([0x80, 0x80, 0x40]) + b"\x08\x01" * (1 << 19)],
            *("INVALID_ARGUMENT", "more than 1000 fields"),
        ),
        (
            [hello(environments=1), b"\x12\x04" + bytes((1 << 20) + 100)],
            *("INVALID_ARGUMENT", "bytes for a step of 1 environments; at most 1048"),
        ),
        (
            [hello(), b"\x12\x04" + bytes(9 << 20)],
            *("RESOURCE_EXHAUSTED", "larger than max"),
        ),
    ],
)
def test_nonsense_is_refused_with_a_status_and_others_do_not_notice(
    server, connect, requests, code, words
):
    client = connect()
    client.act(steps_at(0), 0, _NOTHING)
    with pytest.raises(grpc.RpcError) as error:
        talk(server, *requests)
    assert error.value.code().name == code and words in error.value.details()
    assert client.act(steps_at(1), 0, _NOTHING).tolist() == [1, 11, 21]


def test_specs_of_both_sides_are_shown(connect):
    other = _SPECS._replace(action=(ArraySpec((), np.dtype(np.int32), 0, 6),))
    with pytest.raises(ConfigurationError) as error:
        connect(specs=other).act(steps_at(0), 0, _NOTHING)
    assert "of 7 values" in str(error.value) and "of 5 values" in str(error.value)
    with pytest.raises(ConfigurationError, match="experiment mismatch"):
        connect(experiment="another").act(steps_at(0), 0, _NOTHING)


def test_a_stream_that_says_nothing_is_ended(server, monkeypatch):
    monkeypatch.setattr(admission, "FIRST_MESSAGE_SECS", 0.3)
    with grpc.insecure_channel(str(server.address)) as channel:
        hold = threading.Event()
        call = channel.stream_stream("/tfdrl.v1.Inference/Act")
        with pytest.raises(grpc.RpcError) as error:
            next(call(iter(hold.wait, None), timeout=10))
        hold.set()
    assert error.value.code().name == "DEADLINE_EXCEEDED"
    assert "no message within 0.3 s" in error.value.details()


def test_an_actor_that_stops_reading_holds_up_nobody(server, connect):
    """Its answers fill its own stream's window; the server waits there, and only there."""
    client = connect()
    client.act(steps_at(0), 0, _NOTHING)
    with grpc.insecure_channel(str(server.address)) as channel:
        requests = itertools.chain([hello()], map(step_message, range(1 << 16)))
        call = channel.stream_stream("/tfdrl.v1.Inference/Act")
        deaf = call(message.SerializeToString() for message in requests)
        assert inference_pb2.ActReply.FromString(next(deaf)).HasField("welcome")
        start_secs = time.monotonic()
        for t in range(1, 200):
            assert client.act(steps_at(t), 0, _NOTHING).tolist() == [t, t + 10, t + 20]
        assert time.monotonic() - start_secs < 10.0
        deaf.cancel()


@pytest.mark.parametrize("cut", [10, 60, 200])
def test_connection_that_is_cut_in_mid_message_leaves_nothing(server, connect, player, cut):
    """An actor's bytes up to somewhere in its second message, then the end of the connection."""
    with socket.create_server(("127.0.0.1", 0)) as wire:
        up_bytes = []

        def carry():
            near, _ = wire.accept()
            with near, socket.create_connection((server.address.host, server.address.port)) as far:
                back = threading.Thread(target=_copy, args=(far, near), daemon=True)
                back.start()
                while data := near.recv(1 << 16):
                    if b"tfdrl.v1.Inference" in b"".join(up_bytes) and len(player.seats) == 1:
                        far.sendall(data[:cut])
                        far.shutdown(socket.SHUT_RDWR)
                        return
                    up_bytes.append(data)
                    far.sendall(data)

        thread = threading.Thread(target=carry, daemon=True)
        thread.start()
        broken = connect(address=Address("127.0.0.1", wire.getsockname()[1]), timeout_secs=2.0)
        with pytest.raises(UnavailableError):
            broken.act(steps_at(0), 0, _NOTHING)
        thread.join(5.0)
    assert player.seats[0].messages == []
    client = connect()
    assert client.act(steps_at(0), 0, _NOTHING).tolist() == [0, 10, 20]


_CROWD = """
import sys, queue, grpc
hello, steps = (bytes.fromhex(text) for text in sys.argv[2:4])
calls = []
for _ in range(int(sys.argv[4])):
    channel = grpc.insecure_channel(sys.argv[1], [("grpc.use_local_subchannel_pool", 1)])
    requests = queue.SimpleQueue()
    calls.append((channel, requests, channel.stream_stream("/tfdrl.v1.Inference/Act")(
        iter(requests.get, None))))
for data in (hello, steps):
    for _, requests, _ in calls:
        requests.put(data)
    print(sum(bool(next(replies)) for _, _, replies in calls), flush=True)
sys.stdin.read()
"""


def test_two_hundred_streams_at_once_twice_leave_nothing_behind(player):
    service = InferenceService(player, "digest", _SPECS)
    server = TrainingServer(Address("127.0.0.1", 0), "digest", more=service.served_for(200))
    arguments = [str(server.address), hello().SerializeToString().hex(), encode(0).hex(), "200"]

    def crowd():
        player.seats.clear()
        child = subprocess.Popen(
            [sys.executable, "-c", _CROWD, *arguments],
            **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True},
        )
        assert [int(child.stdout.readline()) for _ in range(2)] == [200, 200]
        during = len(os.listdir("/proc/self/fd")), threading.active_count()
        child.communicate("")
        deadline = time.monotonic() + 10
        while not all(seat.has_left for seat in player.seats) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(player.seats) == 200 and all(seat.has_left for seat in player.seats)
        return during

    try:
        crowd()  # the first one fills caches
        time.sleep(1.0)
        descriptors, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
        for _ in range(2):
            many, still = crowd()
            assert many >= descriptors + 200 and still <= threads  # streams cost no threads
            time.sleep(1.0)
            assert len(os.listdir("/proc/self/fd")) <= descriptors + 2
            assert threading.active_count() <= threads
    finally:
        server.close()


def _copy(source, sink):
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)


def test_messages_of_an_encoder_do_not_remember_the_one_before():
    encoder = StepsEncoder(_SPECS, _N)
    episodes = training_pb2.Episodes(first=3, returns=[1.0], length_frames=[4])
    encoder.encode(0, steps_at(5), 12, episodes)
    assert encoder.encode(1, steps_at(1), 24, None) == encode(1, 24)
    with pytest.raises(ValueError, match="an observation array has shape"):
        encoder.encode(2, steps_at(2, environments=_N + 1), 0, None)


def test_the_learner_says_stop(connect, player):
    client = connect()
    client.act(steps_at(0), 0, _NOTHING)
    player.is_over = True
    with pytest.raises(ActorStoppedError, match="done"):
        client.act(steps_at(1), 0, _NOTHING)


def test_a_signal_ends_the_wait_for_a_learner():
    stop = threading.Event()
    client = InferenceClient(
        Address("127.0.0.1", 1), experiment="", task=0, environments=_N, specs=_SPECS,
        timeout_secs=60.0, stop=stop,
    )  # fmt: skip
    threading.Timer(0.5, stop.set).start()
    start_secs = time.monotonic()
    with pytest.raises(ActorStoppedError):
        client.act(steps_at(0), 0, _NOTHING)
    assert time.monotonic() - start_secs < 5.0
    client.close()


def test_no_learner_within_the_time_limit_is_an_error(connect):
    client = connect(address=Address("127.0.0.1", 1), timeout_secs=1.0)
    with pytest.raises(UnavailableError, match=r"actor 1: the learner at 127\.0\.0\.1:1 gave no"):
        client.act(steps_at(0), 0, _NOTHING)


def test_a_learner_that_does_not_answer_is_given_up_after_the_time_limit(connect, player):
    client = connect(timeout_secs=1.0)
    client.act(steps_at(0), 0, _NOTHING)
    player.seats[0].act = lambda *unused: asyncio.sleep(20.0)
    start_secs = time.monotonic()
    with pytest.raises(UnavailableError, match="it does not answer"):
        client.act(steps_at(1), 0, _NOTHING)
    assert time.monotonic() - start_secs < 10.0


def test_a_learner_that_was_restarted_is_found_and_the_run_begins_anew(player):
    service = InferenceService(player, "digest", _SPECS)
    first = TrainingServer(Address("127.0.0.1", 0), "digest", more=service.served_for(8))
    client = InferenceClient(
        first.address, experiment="digest", task=0, environments=_N, specs=_SPECS,
        timeout_secs=20.0, stop=threading.Event(),
    )  # fmt: skip
    client.act(steps_at(0), 0, _NOTHING)
    client.act(steps_at(1), 0, _NOTHING)
    first.close(grace_secs=0.0)
    second = TrainingServer(first.address, "digest", more=service.served_for(8))
    with pytest.raises(LearnerRestartedError):
        client.act(steps_at(2), 0, _NOTHING)
    assert client.act(steps_at(0), 0, _NOTHING).tolist() == [0, 10, 20]
    runs = [seat.hello.sender.run_id for seat in player.seats]
    assert runs[0] == runs[1] != runs[2]
    client.close()
    second.close()


def test_episodes_are_numbered(connect, player):
    client = connect()
    returns = Episodes(np.array([1.5, 2.5], np.float32), np.array([10, 20]))
    client.act(steps_at(0), 0, returns)
    client.act(steps_at(1), 0, _NOTHING)
    client.act(steps_at(2), 0, returns)
    sent = [message.episodes for message in player.seats[0].messages]
    assert [(e.first, list(e.returns)) for e in sent] == [(0, [1.5, 2.5]), (0, []), (2, [1.5, 2.5])]


def test_what_is_joined_by_hand_is_what_protobuf_makes():
    """And what is split by hand is what protobuf reads, in whatever order the fields are."""
    data = encode(7, 12)
    message = inference_pb2.ActRequest.FromString(data)
    assert message.steps.index == 7 and message.steps.frames == 12
    again = message.SerializeToString()
    assert len(again) == len(data)
    for one in (data, again, elements_first(data)):
        steps = parse_request(one)
        found = StepsValidator(_SPECS, _N).time_steps(steps)
        position, screen = found.observation
        np.testing.assert_array_equal(position, steps_at(7).observation["position"])
        np.testing.assert_array_equal(screen, steps_at(7).observation["screen"])
        np.testing.assert_array_equal(found.reward, steps_at(7).reward)


def elements_first(data):
    """The same message, whose arrays say what they are after what they hold."""
    (steps,) = (value for _, _, _, value in protobuf_views.fields(memoryview(data)))
    turned = b""
    for number, _, field, value in protobuf_views.fields(steps):
        if 2 <= number <= 5:
            fields = [bytes(field) for _, _, field, _ in protobuf_views.fields(value)]
            turned += protobuf_views.head(number, len(value)) + b"".join(reversed(fields))
        else:
            turned += bytes(field)
    return protobuf_views.head(2, len(turned)) + turned


def test_no_bytes_whatever_do_more_than_be_refused():
    """Cut and changed messages: MessageError, or steps of the right shapes, nothing else."""
    generator = np.random.default_rng(0)
    data = encode(7, 12)
    refused, door = 0, StepsValidator(_SPECS, _N)
    for number in range(3000):
        broken = bytearray(data[: number % len(data)] if number % 2 else data)
        for _ in range(number % 4):
            broken[generator.integers(max(len(broken), 1)) :][:1] = b""
            if broken:
                broken[generator.integers(len(broken))] = generator.integers(256)
        try:
            request = parse_request(bytes(broken))
            if isinstance(request, Steps):
                door.time_steps(request)
        except tensors.MessageError:
            refused += 1
    assert 1000 < refused < 3000


def test_order_of_step_types():
    check = check_order
    check(np.array([FIRST, FIRST]), None)
    check(np.array([MID, LAST]), np.array([FIRST, MID]))
    check(np.array([FIRST, LAST]), np.array([LAST, FIRST]))
    with pytest.raises(tensors.MessageError, match="must be FIRST"):
        check(np.array([FIRST, MID]), None)
    with pytest.raises(tensors.MessageError, match=r"environment 1 .* from step_type 2 to 1"):
        check(np.array([MID, MID]), np.array([FIRST, LAST]))
    with pytest.raises(tensors.MessageError, match="environment 0"):
        check(np.array([FIRST, MID]), np.array([MID, MID]))


def test_writing_steps_keeps_nothing_of_them():
    """An actor writes some hundred steps a second, for days."""
    encoder, steps = StepsEncoder(_SPECS, _N), steps_at(1)

    def grown_bytes():
        before = _resident_bytes()
        for t in range(30_000):
            encoder.encode(t, steps, 0, None)
        return _resident_bytes() - before

    grown_bytes()
    assert min(grown_bytes() for _ in range(3)) < 30_000 * 5


def _resident_bytes():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_only_the_newest_frame_travels():
    spec = ArraySpec((4, 4, 2), np.dtype(np.uint8), 0, 255)
    specs = EnvironmentSpecs((spec,), _SPECS.action, 2, spec, _SPECS.action_nest)
    stacks = np.random.default_rng(0).integers(0, 256, (_N, 4, 4, 2), np.uint8)
    data = encode(0, 0, steps_at(0)._replace(observation=stacks), specs)
    message = inference_pb2.ActRequest.FromString(data).steps
    assert len(message.observation[0].data) == _N * 16
    steps = parse_request(data)
    (found,) = StepsValidator(specs, _N).time_steps(steps).observation
    np.testing.assert_array_equal(found, stacks[..., 1:])
    assert message.stack_starts == bytes(_N), "these stacks go on"


@pytest.mark.parametrize("starts", [b"\0", b"\0\1\2"])
def test_where_stacks_start_is_one_bit_for_each_environment(starts):
    steps = inference_pb2.ActRequest.FromString(encode(0, 0, steps_at(0))).steps
    steps.stack_starts = starts
    request = parse_request(inference_pb2.ActRequest(steps=steps).SerializeToString())
    with pytest.raises(tensors.MessageError, match="stack_starts"):
        StepsValidator(_SPECS, _N).time_steps(request)


def test_leaves_are_in_the_order_of_sorted_keys():
    leaves = flatten(_SPECS.observation_nest, {"screen": 1, "position": 2})
    assert leaves == [2, 1]
    packed = pack(_SPECS.observation_nest, leaves)
    assert packed == {"screen": 1, "position": 2}
