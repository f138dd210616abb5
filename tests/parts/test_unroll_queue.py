"""The queue of unrolls on a real Reverb server: order, back-pressure, and a server that dies."""

import contextlib
import os
import pathlib
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import tensorflow as tf
import tree
from unroll_servers import (
    SIGNATURE,
    UNITS,
    T,
    batches_of,
    check_experience,
    serving,
    signature_of,
    table_info,
    to_numpy,
    unrolls,
    write_each,
    writers,
)

from tfdrl.errors import ConfigurationError, UnavailableError
from tfdrl.parts.replay_reading import ReplayInfo, Samples
from tfdrl.parts.unroll_tables import QUEUE, unroll_bytes, with_row
from tfdrl.topology import Address
from tfdrl.types import TimeSteps, Unrolls


@pytest.fixture
def writer_to():
    with writers() as start:
        yield start


def test_signature():
    def f32(*shape):
        return tf.TensorSpec(shape, tf.float32)

    action = tf.TensorSpec([T], tf.int32)
    found = tree.map_structure(lambda spec: (spec.shape, spec.dtype), SIGNATURE)
    wanted = Unrolls(
        TimeSteps(tf.TensorSpec([T + 1], tf.int32), f32(T + 1), f32(T + 1), f32(T + 1, 5)),
        *(action, {"logits": f32(T, 2)}),
        policy_state=SIGNATURE.policy_state.__class__(
            (f32(UNITS), f32(UNITS)), tf.TensorSpec([], tf.int32)
        ),
        version=tf.TensorSpec([], tf.int64),
        time_secs=tf.TensorSpec([], tf.float64),
    )
    assert found == tree.map_structure(lambda spec: (spec.shape, spec.dtype), wanted)
    sizes = 3 * 4 * (T + 1) + 20 * (T + 1) + 4 * T + 8 * T + 2 * 4 * UNITS + 4 + 8 + 8
    assert unroll_bytes(SIGNATURE) == sizes


def test_batches_are_the_unrolls_in_their_order_each_once(writer_to):
    with serving() as address:
        writer = writer_to(address)
        writer.write(unrolls(0, 1, 2))
        writer.write(unrolls(3, 4, 5, 6))
        assert writer.items == writer.counters()["actor/unrolls"] == 7
        batches, sent = batches_of(address, 3), unrolls(*range(6))
        found = [next(batches), next(batches)]
        assert table_info(address).current_size <= 1  # the seventh waits for two more
    whole = tree.map_structure(lambda *leaves: np.concatenate(leaves), *map(to_numpy, found))
    np.testing.assert_array_equal(whole.version, range(6))
    np.testing.assert_array_equal(whole.time_secs, sent.time_secs)
    np.testing.assert_array_equal(whole.last_reward, sent.steps.reward[:, 0])
    tree.map_structure(np.testing.assert_array_equal, whole.policy_state, sent.policy_state)
    check_experience(whole.experience, sent)


def test_several_actors(writer_to):
    """Each one's unrolls keep their order, and none is lost or comes twice."""
    with serving(queue_capacity=4) as address:
        writers = [writer_to(address), writer_to(address)]
        threads = [
            threading.Thread(target=write_each, args=(writer, range(start, start + 8)))
            for writer, start in zip(writers, (0, 100))
        ]
        for thread in threads:
            thread.start()
        batches = batches_of(address, 4)
        found = np.concatenate([next(batches).version.numpy() for _ in range(4)])
        for thread in threads:
            thread.join(20)
    assert found[found < 100].tolist() == list(range(8))
    assert found[found >= 100].tolist() == list(range(100, 108))


def test_a_full_queue_holds_the_actor_until_the_learner_takes_some(writer_to):
    with serving(queue_capacity=3) as address:
        writer = writer_to(address, timeout_secs=1.5)
        write_each(writer, range(3))
        thread = threading.Thread(target=write_each, args=(writer, range(3, 9)))
        writer.waiting.take_share()
        thread.start()
        time.sleep(2.5)  # past the time limit: a learner that is slow is no error
        assert thread.is_alive() and writer.items == 4
        assert table_info(address).current_size == 3
        batches = batches_of(address, 3)
        found = [next(batches).version.numpy().tolist() for _ in range(3)]
        thread.join(20)
        assert not thread.is_alive() and writer.items == 9
        assert writer.waiting.take_share() > 0.5
    assert found == [[0, 1, 2], [3, 4, 5], [6, 7, 8]]


_SERVER = """
import time, reverb, unroll_servers as t
server = reverb.Server(t.unroll_tables(t.SIGNATURE, 100, 0), port=None)
print(server.port, flush=True)
time.sleep(1000)
"""


@contextlib.contextmanager
def server_process():
    here = pathlib.Path(__file__).parent
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        **{"cwd": here, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True},
        env={**os.environ, "PYTHONPATH": str(here.parents[1])},
    )
    try:
        yield process, Address("localhost", int(process.stdout.readline()))
    finally:
        process.kill()
        process.wait()


def test_a_dead_server_is_an_error_within_the_limit(writer_to):
    """For who writes and for who reads."""
    with server_process() as (process, address):
        writer = writer_to(address, timeout_secs=3.0)
        writer.write(unrolls(0, 1))
        info, stop = ReplayInfo(address, 3.0, QUEUE), threading.Event()
        assert info.wait(with_row(SIGNATURE), "the learner", stop).current_size == 2
        samples = Samples(batches_of(address, 2), 1, info, stop)
        assert samples.next(20.0).version.numpy().tolist() == [0, 1]
        process.kill()
        process.wait()
        start_secs = time.monotonic()
        with pytest.raises(UnavailableError, match=f"{address} does not answer; .* for 3 s"):
            write_each(writer, range(2, 4))
        assert time.monotonic() - start_secs < 15
        with pytest.raises(UnavailableError, match=str(address)):
            while time.monotonic() - start_secs < 30:
                samples._is_time_to_warn = lambda: True
                samples.next(0.1)
        start_secs = time.monotonic()
        writer.close()
        stop.set()
        assert time.monotonic() - start_secs < 5


def test_stop_ends_the_wait_for_a_full_queue(writer_to):
    with serving(queue_capacity=1) as address:
        writer = writer_to(address)
        writer.write(unrolls(0))
        threading.Timer(0.5, writer_to.stop.set).start()
        start_secs = time.monotonic()
        writer.write(unrolls(1, 2))  # returns, though nobody took them
        writer.close()
        assert 0.4 < time.monotonic() - start_secs < 5


def test_who_asks_about_the_learner_is_asked_while_waiting(writer_to):
    def gone():
        raise UnavailableError("the learner went away")

    with serving(queue_capacity=1) as address:
        writer = writer_to(address, check_learner=gone)
        writer.write(unrolls(0))
        with pytest.raises(UnavailableError, match="the learner went away"):
            writer.write(unrolls(1))


@pytest.mark.parametrize(
    "other", [lambda: signature_of("tfdrl/Catch-v0"), lambda: signature_of(unroll_steps=T + 1)]
)
def test_another_environment_or_unroll_length_is_refused(other):
    with serving() as address:
        info = ReplayInfo(address, 5.0, QUEUE)
        info.wait(with_row(SIGNATURE), "the actor", threading.Event())
        theirs = with_row(other())
        with pytest.raises(ConfigurationError) as error:
            info.wait(theirs, "the actor", threading.Event())
    for signature in (with_row(SIGNATURE), theirs):
        assert f"float32{signature.steps.observation.shape.as_list()}" in str(error.value)
    assert "same gin file" in str(error.value)
