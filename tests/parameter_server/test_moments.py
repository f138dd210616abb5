"""Running statistics on parameter servers: the sums of all workers are those of one who saw all."""

import functools
import pathlib
import threading

import numpy as np
import pytest
import tensorflow as tf
from running_roles import free_port
from tf_agents.agents import tf_agent
from tf_agents.policies import random_tf_policy
from tf_agents.specs import BoundedTensorSpec
from tf_agents.trajectories import StepType
from tf_agents.trajectories import time_step as ts

from tfdrl.agents.normalization import normalization
from tfdrl.errors import ConfigurationError
from tfdrl.experience.transitions import to_trajectory
from tfdrl.parameter_server.client import GlobalParameters
from tfdrl.parameter_server.gradients import LossGradient
from tfdrl.parameter_server.protocol import ACCEPTED, OLD_EPOCH, OUTLIER, STALE
from tfdrl.parameter_server.role import ShardServer
from tfdrl.parameter_server.settings import ParameterServerSettings
from tfdrl.topology import Address, Context
from tfdrl.types import Transitions

BATCH, CLIP = 16, 10.0
#: Of the three observations: what no network could learn from as it is.
SCALE, OFFSET = np.array([1e4, 1e-4, 1.0]), np.array([2e5, 0.0, -3.0])


class Regression(tf_agent.TFAgent):
    """Predicts the reward from the observation: mean of (w o + b - r)^2."""

    gamma = 0.99

    def __init__(self):
        tf.Module.__init__(self, name="Regression")
        specs = (
            ts.time_step_spec(tf.TensorSpec([3], tf.float32)),
            BoundedTensorSpec((), "int32", 0, 1),
        )
        policy = random_tf_policy.RandomTFPolicy(*specs)
        super().__init__(*specs, policy, policy, train_sequence_length=None)
        self.weights, self.bias = tf.Variable([1.0, -2.0, 3.0]), tf.Variable(0.5)

    def _initialize(self):
        pass

    def _train(self, experience, weights=None):
        raise AssertionError("who has parameter servers computes gradients")

    def _loss(self, experience, weights=None, training=False):
        predicted = tf.linalg.matvec(experience.observation[:, 0], self.weights) + self.bias
        loss = tf.reduce_mean(tf.square(predicted - experience.reward[:, 0]))
        return tf_agent.LossInfo(loss, ())


def batch_of(seed):
    """Transitions of [BATCH, ...]; each worker sees another part of the world."""
    random = np.random.default_rng(seed)
    shift = OFFSET + SCALE * random.normal(size=3)
    observation = (shift + SCALE * random.normal(size=(BATCH, 3))).astype(np.float32)
    reward = (300.0 * random.normal(size=BATCH)).astype(np.float32)
    action = random.integers(0, 2, BATCH).astype(np.int32)
    discount = random.choice([0.0, 0.99], BATCH).astype(np.float32)
    return Transitions(observation, action, reward, discount, observation[::-1])


@functools.cache
def learner(task):
    """Agent and gradient of a worker, made once."""
    agent = normalization(Regression(), observations=True, returns=True)
    return agent, gradient_of(agent)


def gradient_of(agent):
    def arguments(transitions):
        return {"experience": to_trajectory(transitions, tf.stack)}

    return LossGradient(agent, arguments, [batch_of(0)])


class Worker:
    """A learner with parameters of a run; no two of a task at a time."""

    def __init__(self, addresses, settings, task, barrier=0, made=None):
        self.agent, self.gradient = made or learner(task)
        context = Context("worker", task, 2, pathlib.Path(), experiment="x")
        self.parameters = GlobalParameters(
            *(addresses, self.gradient.variables, settings, context, 20.0, barrier),
            moments=self.gradient.moments,
        )
        self.gradient.split(self.parameters.indices)

    def learn(self, *seeds):
        """Pushes the gradients of batches; verdicts."""
        return [self.parameters.push(self.gradient(batch_of(seed)), 1) for seed in seeds]

    def sums(self):
        return [moments.numpy() for moments in self.gradient.moments]


class Run:
    """Two shards, and workers; `known` are the batches that were learnt from."""

    def __init__(self, directory, barrier=0, **settings):
        self.settings = ParameterServerSettings(
            **{"rule": "sgd", "learning_rate": 1e-3, **settings}
        )
        self._barrier, self.known = barrier, []
        self.addresses = tuple(Address("127.0.0.1", free_port()) for _ in range(2))
        _, source = learner(2)
        self.shards = [
            ShardServer(
                source.variables,
                self.settings,
                Context(
                    *("parameter_server", task, 2, pathlib.Path(directory)),
                    listen=address,
                    experiment="x",
                ),
                barrier,
                source.moments,
            ).shard
            for task, address in enumerate(self.addresses)
        ]

    def worker(self, task):
        worker = Worker(self.addresses, self.settings, task, self._barrier)
        assert worker.parameters.connect()
        return worker


def pooled(*seeds):
    """Mean and standard deviation of all that was learnt from, by numpy."""
    data = np.concatenate([batch_of(seed).observation for seed in seeds]).astype(np.float64)
    return data.mean(0), data.std(0)


def check_pooled(worker, *seeds):
    mean, std = pooled(*seeds)
    probe = (OFFSET + SCALE * np.random.default_rng(99).normal(size=(5, 3))).astype(np.float32)
    found = worker.agent.statistics.scaled_observation(tf.constant(probe))
    np.testing.assert_allclose(found, np.clip((probe - mean) / std, -CLIP, CLIP), 1e-5, 1e-5)
    rewards = np.concatenate([batch_of(seed).n_step_return for seed in seeds]).astype(np.float64)
    scaled = worker.agent.statistics.scaled_reward(tf.constant(rewards, tf.float32))
    np.testing.assert_allclose(scaled, rewards / rewards.std(), 1e-5)
    assert worker.sums()[0][0] == worker.sums()[1][0] == len(rewards)


@pytest.fixture(scope="module")
def aged(tmp_path_factory):
    """Two shards that take a gradient one update old, not older."""
    return Run(tmp_path_factory.mktemp("aged"), max_gradient_age=1)


def test_interleaved_workers_have_the_statistics_of_one_who_saw_all(aged):
    left, right = aged.worker(0), aged.worker(1)
    for pair in ((10, 20), (11, 21), (12, 22)):  # each computes before the other has sent
        gradients = [w.gradient(batch_of(seed)) for w, seed in zip((left, right), pair)]
        for worker, gradient, seed in zip((left, right), gradients, pair):
            assert worker.parameters.push(gradient, 1) == ACCEPTED
            aged.known.append(seed)
            check_pooled(worker, *aged.known)  # what is sent comes back in the sums of all
    left.parameters.pull()
    check_pooled(left, *aged.known)
    np.testing.assert_array_equal(left.sums()[0], right.sums()[0])


def test_the_loss_is_computed_with_what_all_have_sent_and_the_batch_itself(aged):
    worker, other = aged.worker(0), aged.worker(1)
    assert other.learn(30) == [ACCEPTED]
    aged.known.append(30)
    worker.parameters.pull()
    before, batch = worker.sums(), batch_of(31)
    found = worker.gradient(batch)
    np.testing.assert_array_equal(worker.sums()[0], before[0])  # the servers', until they answer
    seen = (*aged.known, 31)
    mean, std = pooled(*seen)
    rewards = np.concatenate([batch_of(seed).n_step_return for seed in seen])
    scaled = np.clip((batch.observation - mean) / std, -CLIP, CLIP)
    weights, bias = (variable.numpy() for variable in worker.gradient.variables)
    errors = scaled @ weights + bias - batch.n_step_return / rewards.std()
    np.testing.assert_allclose(found.loss, np.mean(errors**2), rtol=1e-5)


def test_what_is_refused_or_withheld_adds_nothing(aged):
    left, right = aged.worker(0), aged.worker(1)
    right.learn(40, 41, 42)
    aged.known += [40, 41, 42]
    assert left.learn(43) == [STALE]
    check_pooled(left, *aged.known)
    left.gradient(batch_of(44))
    assert left.parameters.withhold(OUTLIER) == OUTLIER
    assert left.learn(45) == [ACCEPTED]
    aged.known.append(45)
    check_pooled(left, *aged.known)


def test_they_go_back_with_the_parameters_and_continue_from_a_checkpoint(tmp_path):
    run = Run(tmp_path)
    worker, late = run.worker(0), run.worker(1)
    worker.learn(10)
    first = [shard.snapshot().version for shard in run.shards]
    worker.learn(11, 12)
    for shard, version in zip(run.shards, first):
        shard.rollback(version)
    assert late.learn(20) == [OLD_EPOCH]
    check_pooled(late, 10)
    assert late.learn(20) == [ACCEPTED]
    for shard in run.shards:
        shard.checkpoint()
        shard.close()
    again = Run(tmp_path)
    assert all(shard.restored for shard in again.shards)
    check_pooled(again.worker(0), 10, 20)


def test_synchronous_workers_add_when_their_update_is_made(tmp_path):
    run = Run(tmp_path, barrier=2)
    left, right = run.worker(0), run.worker(1)
    thread = threading.Thread(target=left.learn, args=(10,), daemon=True)
    thread.start()
    while not run.shards[1].status()["verdicts"]["accepted"]:
        assert thread.is_alive()
    assert right.parameters.version == 0 and not right.parameters.pull()
    right.parameters.refresh()
    assert right.sums()[0][0] == 0  # the update is not made
    assert right.learn(20) == [ACCEPTED]
    thread.join(20.0)
    for worker in (left, right):
        check_pooled(worker, 10, 20)


def test_a_worker_without_them_is_not_of_this_run(aged):
    agent = Regression()
    plain = Worker(aged.addresses, aged.settings, 0, made=(agent, gradient_of(agent)))
    with pytest.raises(ConfigurationError, match="where this process has no more"):
        plain.parameters.connect()


def test_last_steps_are_no_observations_of_a_transition():
    """The second row of a transition is what it led to, and is counted when something is done."""
    _, gradient = learner(0)
    batch = to_trajectory(tf.nest.map_structure(tf.constant, batch_of(1)), tf.stack)
    assert batch.observation.shape[1] == 2 and StepType.LAST not in batch.step_type.numpy()[:, 0]
    assert gradient(batch_of(1)).moments[0][0] == BATCH
