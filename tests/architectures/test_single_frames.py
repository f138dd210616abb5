"""Each frame travels and is stored once: what reaches an agent's loss are the stacks of today.

Random games with lost lives and time limits are played by an actor's loop; what it makes goes
through the architecture's own writers, replay and readers into the compiled step of its learner.
"""

import itertools
import threading

import numpy as np
import pytest
import reverb
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.policies import random_tf_policy

from tests.support.stacked_games import StackedGames
from tfdrl import environments_tf
from tfdrl.acting.loop import ActorLoop
from tfdrl.experience.frame_stacks import with_single_frames
from tfdrl.experience.transitions import TransitionAssembler
from tfdrl.experience.uniform_replay import UniformReplay
from tfdrl.experience.unroll_assembler import UnrollAssembler
from tfdrl.experience.unroll_batches import train_arguments
from tfdrl.learning.trainer import Trainer
from tfdrl.parameter_server.rollout_learning import rollout_gradient
from tfdrl.parameter_server.transition_learning import trajectory_gradient, transition_gradient
from tfdrl.replay import transition_table, unroll_tables
from tfdrl.replay.transition_dataset import first, sample_dataset
from tfdrl.replay.transition_writer import TransitionWriter
from tfdrl.replay.unroll_dataset import unroll_dataset
from tfdrl.replay.unroll_writer import UnrollWriter
from tfdrl.topology import Address, Context
from tfdrl.types import LAST

N, T, STACK = 3, 5, 4


class Games(StackedGames):
    """Keeps what it showed."""

    def __init__(self, frame_stack=STACK):
        super().__init__(N, frame_stack)
        self.shown = []

    def reset(self):
        self.shown.append(super().reset())
        return self.shown[-1]

    def step(self, action):
        self.shown.append(super().step(action))
        return self.shown[-1]

    def stacks(self, i, start, steps):
        """Observations [steps, ...] of game i."""
        return np.stack([step.observation[i] for step in self.shown[start : start + steps]])


class Recorder:
    """An agent that keeps the observations that its loss is given."""

    def __init__(self, environment):
        self.collect_policy = random_tf_policy.RandomTFPolicy(
            environments_tf.time_step_spec(environment.observation_spec),
            environments_tf.to_tf_specs(environment.action_spec),
        )
        self.train_step_counter = tf.Variable(0)
        self.weight, self.seen = tf.Variable(1.0), []

    def loss(self, experience, weights=None, training=False):
        del weights, training
        tf.numpy_function(self.seen.append, [experience.observation], [])
        return tf_agent.LossInfo(self.weight * tf.reduce_sum(experience.reward), ())

    train = _train = loss

    def initialize(self):
        pass


class Connection:
    version = 0

    def report(self, *_):
        pass


def loop_of(environment, agent, directory):
    context = Context("actor", 0, 1, directory, stop=threading.Event())
    return ActorLoop(environment, agent.collect_policy, Connection(), context)


def steps_of(environment, agent, directory):
    return with_single_frames(environment, loop_of(environment, agent, directory).steps())


def unrolls_of(environment, agent, directory, count, overlap=0):
    """N unrolls at a time."""
    assembler = UnrollAssembler(N, T, overlap, environment.frame_stack)
    found, steps = [], count * (T - overlap) + overlap
    assembler.begin(())
    for step in itertools.islice(steps_of(environment, agent, directory), steps):
        unrolls = assembler.add(*step, 0)
        if unrolls is not None:
            assembler.begin(())
            found.append(unrolls)
    return found


def pairs_of(games, n, steps):
    """{observations of s_t and s_{t+m}: discount's last factor} of what begins in so many steps."""
    found = {}
    for t, i in itertools.product(range(steps), range(N)):
        if games.shown[t].step_type[i] == LAST:
            continue
        m = 1
        while m < n and games.shown[t + m].step_type[i] != LAST:
            m += 1
        pair = np.stack([games.stacks(i, t, 1)[0], games.stacks(i, t + m, 1)[0]])
        found[pair.tobytes()] = m
    return found


def blocks_of(environment, agent, directory, n, count):
    assembler = TransitionAssembler(N, n, 0.5, block_steps=4)
    steps = itertools.islice(steps_of(environment, agent, directory), 4 * count + n)
    return [block for step in steps if (block := assembler.add(*step, 0)) is not None]


def serving(signature):
    """Each item once, in their order."""
    settings = {"max_size": 10_000, "min_size": 1, "sampler": "fifo", "max_times_sampled": 1}
    server = reverb.Server([transition_table.replay_table(signature, **settings)], port=None)
    return server, Address("localhost", server.port)


def write_transitions(address, games, agent, directory, n, frame_stack):
    writer = TransitionWriter(address, N, n, 20.0, threading.Event(), frame_stack)
    for block in blocks_of(games, agent, directory, n, 12):
        writer.write(block)
    writer.close()
    return writer.items


def dataset_of(address, signature, batch_size):
    return sample_dataset(address, signature, batch_size, 1, 0.0, 1)


@pytest.mark.parametrize("n", [1, 3])
def test_apex(tmp_path, n):
    games = Games()
    agent = Recorder(games)
    signature = transition_table.transition_signature(games, n)
    assert signature.observation.shape == (n + STACK, 6, 6)
    assert signature.step.shape == (1, 4 + 1 + n + 1)
    server, address = serving(signature)
    items = write_transitions(address, games, agent, tmp_path, n, STACK)
    trainer = Trainer(agent, tf.distribute.get_strategy(), max_bad_steps=1)
    for batch in dataset_of(address, signature, 4).take(items // 4):
        trainer.train(batch.experience, batch.weights)
    server.stop()
    expected = list(pairs_of(games, n, 4 * 12))
    assert items == len(expected) > 100
    seen = [pair.tobytes() for batch in agent.seen for pair in batch]
    assert seen == expected[: len(seen)] and len(seen) > items - 4


def test_gorila_with_a_global_replay(tmp_path):
    games, n = Games(), 2
    agent = Recorder(games)
    signature = transition_table.transition_signature(games, n)
    server, address = serving(signature)
    items = write_transitions(address, games, agent, tmp_path, n, STACK)
    gradient = trajectory_gradient(agent, games, 4, n)
    agent.seen.clear()
    for batch in dataset_of(address, signature, 4).take(items // 4):
        gradient(first(batch.experience))
    server.stop()
    expected = list(pairs_of(games, n, 4 * 12))
    seen = [pair.tobytes() for batch in agent.seen for pair in batch]
    assert seen == expected[: len(seen)] and len(seen) > items - 4


@pytest.mark.parametrize("learn", ["dqn", "gorila"])
@pytest.mark.parametrize("n", [1, 3])
def test_uniform_replay(tmp_path, learn, n):
    games = Games()
    agent = Recorder(games)
    replay = UniformReplay(100 * N, N, n, 0.5, STACK)
    assert replay.size_steps == 0
    for step in itertools.islice(loop_of(games, agent, tmp_path).steps(), 60):
        replay.add(*step[:3])
    if learn == "dqn":
        trainer = Trainer(agent, tf.distribute.get_strategy(), max_bad_steps=1)
        update = trainer.train_transitions
    else:
        update = transition_gradient(agent, games, 32, n, STACK)
    agent.seen.clear()
    for _ in range(20):
        update(replay.sample(32))
    expected = pairs_of(games, n, 60 - n)
    seen = {pair.tobytes() for batch in agent.seen for pair in batch}
    assert seen <= set(expected) and len(seen) > 100


def test_impala(tmp_path):
    games = Games()
    agent = Recorder(games)
    signature = unroll_tables.stored_signature(games, agent.collect_policy, T)
    frames = signature.steps.observation.frames
    assert frames.shape == (T + STACK, 6, 6)
    server = reverb.Server(unroll_tables.unroll_tables(signature, 100, 0), port=None)
    address = Address("localhost", server.port)
    writer = UnrollWriter(address, [unroll_tables.QUEUE], 20.0, threading.Event())
    for unrolls in unrolls_of(games, agent, tmp_path, 12):
        writer.write(unrolls)
    trainer = Trainer(agent, tf.distribute.get_strategy(), max_bad_steps=1)
    for batch in unroll_dataset(address, signature, N).take(12):
        trainer.train_once(**train_arguments(agent, batch))
    server.stop()
    assert len(agent.seen) == 12
    for number, seen in enumerate(agent.seen):
        expected = np.stack([games.stacks(i, number * T, T + 1) for i in range(N)])
        np.testing.assert_array_equal(seen, expected)


@pytest.mark.parametrize("overlap", [0, 2])
def test_a3c(tmp_path, overlap):
    games = Games()
    agent = Recorder(games)
    gradient = rollout_gradient(agent, agent.collect_policy, games, T)
    assert gradient.example[0].steps.observation.frames.nbytes == N * (T + STACK) * 36
    for rollout in unrolls_of(games, agent, tmp_path, 12, overlap):
        gradient(rollout)
    assert len(agent.seen) == 12
    for number, seen in enumerate(agent.seen):
        expected = np.stack([games.stacks(i, number * (T - overlap), T + 1) for i in range(N)])
        np.testing.assert_array_equal(seen, expected)
