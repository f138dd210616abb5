"""Two real processes under MultiWorkerMirroredStrategy: the same as one, and what a loss does."""

import contextlib
import json
import os
import random
import signal
import socket
import time

import numpy as np
import preloaded
import pytest
import tensorflow as tf
from learners import BATCH, TIMEOUT_SECS, Training, batch
from paths import SUPPORT

_START_SECS = 90.0
_FOR_EVER = 10**9


def free_ports(count):
    """Ports that nobody listens on, below those of outgoing connections."""
    found = []
    for port in random.sample(range(20000, 32768), 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("", port))
            found.append(port)
        if len(found) == count:
            return found
    raise AssertionError("no free ports")


def wait(condition, limit_secs, what):
    deadline_secs = time.monotonic() + limit_secs
    while not condition():
        assert time.monotonic() < deadline_secs, f"not within {limit_secs:g} s: {what()}"
        time.sleep(0.05)


class Learners:
    """The processes of one test, by task."""

    def __init__(self, directory):
        self._directory, self._processes = directory, {}
        self.addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]

    def start(self, task, steps=(_FOR_EVER, _FOR_EVER), behaviour="", **environment):
        log = self._directory / f"log-{task}"
        log.unlink(missing_ok=True)
        arguments = [
            str(SUPPORT / "learners.py"),
            str(task),
            ",".join(self.addresses),
        ]
        arguments += [str(self._directory), json.dumps(steps), behaviour]
        self._processes[task] = preloaded.Process(
            *("called", arguments, log), {**os.environ, **environment}
        )

    def start_all(self, *arguments, **environment):
        for task in range(len(self.addresses)):
            self.start(task, *arguments, **environment)

    def wait_until_training(self):
        wait(
            lambda: all((self._directory / f"up-{task}").exists() for task in self._processes),
            _START_SECS,
            self.logs,
        )

    def signal(self, task, number):
        self._processes[task].send_signal(number)

    def exit_code(self, task, limit_secs=_START_SECS):
        wait(lambda: self._processes[task].poll() is not None, limit_secs, self.logs)
        return self._processes[task].returncode

    def log(self, task):
        return (self._directory / f"log-{task}").read_text()

    def logs(self):
        return "\n".join(f"--- learner {task}\n{self.log(task)}" for task in self._processes)

    def result(self, task):
        return json.loads((self._directory / f"result-{task}.json").read_text())

    def weights(self, task):
        with np.load(self._directory / f"weights-{task}.npz") as arrays:
            return list(arrays.values())

    def kill(self):
        for process in self._processes.values():
            process.kill()
            process.wait()


@pytest.fixture
def learners(tmp_path):
    found = Learners(tmp_path)
    yield found
    found.kill()


def one_process(steps, tasks):
    """(losses, weights) of one learner on the joined batches of `tasks`."""
    training, losses = Training(tf.distribute.get_strategy()), []
    for step in range(steps):
        parts = [batch(step, task) for task in tasks]
        joined = [tf.concat(arrays, axis=0) for arrays in zip(*parts)]
        weight = tf.constant(1.0 * len(tasks))  # of BATCH examples each
        with tf.GradientTape() as tape:
            error = tf.reduce_sum(tf.square(training.model(joined[0]) - joined[1]), axis=-1)
            loss = tf.reduce_sum(error) / (weight * BATCH)
        variables = training.model.trainable_variables
        training.optimizer.apply_gradients(zip(tape.gradient(loss, variables), variables))
        losses.append(float(loss))
    return losses, training.weights()


@pytest.mark.parametrize(("behaviour", "tasks"), [("", (0, 1)), ("no_data", (0,))])
def test_two_learners_are_one_on_the_joined_batch(learners, behaviour, tasks):
    """All stop at the step at which the first wants to; one without data has weight 0."""
    # The proxy of the internet must not stand between learners.
    learners.start_all((90, 60), behaviour, http_proxy="http://127.0.0.1:9")
    assert [learners.exit_code(task) for task in (0, 1)] == [0, 0], learners.logs()
    losses, weights = one_process(60, tasks)
    for task in (0, 1):
        result = learners.result(task)
        assert result["steps"] == 60 and result["examples"] == BATCH * len(tasks)
        np.testing.assert_allclose(result["losses"], losses, rtol=1e-4)
        for theirs, ours in zip(learners.weights(task), weights):
            np.testing.assert_allclose(theirs, ours, rtol=1e-4, atol=1e-5)
        # A collective with a time limit of TensorFlow's would leave two threads a step.
        assert result["threads"][-1] < result["threads"][19] + 40
    for left, right in zip(learners.weights(0), learners.weights(1)):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("victim", [0, 1])
def test_killed_learner_ends_the_other_at_once(learners, victim):
    learners.start_all()
    learners.wait_until_training()
    learners.signal(victim, signal.SIGKILL)
    other = 1 - victim
    assert learners.exit_code(other, 15.0) == 1
    at = learners.addresses[victim]
    words = f"tfdrl learner: learner {other} lost learner {victim} at {at}, which has ended or"
    assert words in learners.log(other)


def test_sigterm_to_one_learner_stops_all_at_the_same_step(learners):
    """Also shows that SIGTERM is ours again: TensorFlow takes it when it joins."""
    learners.start_all()
    learners.wait_until_training()
    learners.signal(1, signal.SIGTERM)
    assert [learners.exit_code(task, 15.0) for task in (0, 1)] == [0, 0], learners.logs()
    assert learners.result(0)["steps"] == learners.result(1)["steps"] > 5


@pytest.mark.slow
def test_stopped_process_is_noticed_by_heartbeats(learners):
    learners.start_all()
    learners.wait_until_training()
    learners.signal(1, signal.SIGSTOP)
    assert learners.exit_code(0, 60.0) == 1
    assert "learner 0 lost learner 1 at" in learners.log(0)


@pytest.mark.slow
def test_learner_that_takes_no_part_is_noticed_at_the_time_limit(learners):
    learners.start_all((_FOR_EVER, _FOR_EVER), "hang")
    learners.wait_until_training()
    assert learners.exit_code(0, TIMEOUT_SECS + 20.0) == 1
    assert "learner 0 waited 20 s for another learner to take part" in learners.log(0)


def test_join_that_hangs_ends_the_process_with_its_stack(learners):
    """A chief that says "go" and is gone: TensorFlow would wait for it for an hour."""
    host, _, port = learners.addresses[0].partition(":")
    with socket.create_server((host, int(port))) as chief:
        learners.start(1, TFDRL_TEST_TIMEOUT_SECS="4")
        chief.settimeout(_START_SECS)
        connection, _ = chief.accept()
        with connection:
            assert json.loads(connection.recv(4096))["task"] == 1
            connection.sendall(b"go\n")
    assert learners.exit_code(1, 30.0) == 1
    assert "starting TensorFlow's server (at most 4 s)" in learners.log(1)
    assert "Timeout (0:00:04)!" in learners.log(1)
