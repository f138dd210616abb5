"""R2D2 and V-trace learn from single frames what they learn from whole stacks: the same losses."""

import functools
import itertools
import threading

import numpy as np
import pytest
import reverb
import tensorflow as tf

from tests.support.stacked_games import StackedGames
from tfdrl.acting.exploration import collect_policy
from tfdrl.acting.loop import ActorLoop
from tfdrl.agents.r2d2 import R2D2Agent
from tfdrl.agents.v_trace import VTraceAgent
from tfdrl.experience.frame_stacks import with_single_frames
from tfdrl.experience.unroll_assembler import UnrollAssembler
from tfdrl.experience.unroll_batches import to_batch, train_arguments
from tfdrl.learning.trainer import Trainer
from tfdrl.networks.actor_critic_networks import MlpActorCriticNetwork
from tfdrl.networks.recurrent_q_networks import MlpRecurrentQNetwork
from tfdrl.replay import transition_table, unroll_tables
from tfdrl.replay.sequence_dataset import sequence_dataset
from tfdrl.replay.sequence_writer import SEQUENCES, SequenceAssembler, SequenceWriter
from tfdrl.runtime import agent_factory
from tfdrl.topology import Address, Context

N, T, BURN_IN = 3, 6, 2


class Connection:
    version = 0

    def report(self, *_):
        pass


def games_of(is_whole):
    games = StackedGames(N)
    if is_whole:
        games.frame_stack = 1  # as an environment that stacks by itself, and says nothing
    return games


def loop_of(games, agent, directory):
    context = Context("actor", 0, 1, directory, stop=threading.Event())
    policy = collect_policy(agent, np.full(N, 0.3), seed=1)
    return ActorLoop(games, policy, Connection(), context)


def recording(agent):
    """The observations that its loss is given."""
    seen, network_input = [], agent._network_input

    def record(experience, *arguments):
        tf.numpy_function(seen.append, [experience.observation], [])
        return network_input(experience, *arguments)

    agent._network_input = record
    return seen


def r2d2(directory, is_whole):
    games = games_of(is_whole)
    network = functools.partial(MlpRecurrentQNetwork, layer_units=(8,), lstm_units=4)
    factory = functools.partial(
        R2D2Agent, network=network, optimizer=tf.keras.optimizers.SGD(0.1), burn_in_steps=BURN_IN
    )
    agent_factory.set_seed(3)
    agent = agent_factory.make_agent(factory, games)
    signature = unroll_tables.stored_signature(games, agent.collect_policy, BURN_IN + T)
    table = transition_table.replay_table(
        unroll_tables.with_row(signature),
        **{"name": SEQUENCES, "min_size": 1, "sampler": "fifo", "max_times_sampled": 1},
    )
    server = reverb.Server([table], port=None)
    address, seen = Address("localhost", server.port), recording(agent)
    loop = loop_of(games, agent, directory)
    writer = SequenceWriter(address, agent, games.frame_stack, 20.0, threading.Event())
    assembler = SequenceAssembler(N, BURN_IN + T, BURN_IN, frame_stack=games.frame_stack)
    before = loop.state
    for step in itertools.islice(with_single_frames(games, loop.steps()), 8 * T):
        found = assembler.add(*step, (before, loop.state), 0)
        before = loop.state
        if found is not None:
            writer.write(*found)
    trainer, losses = Trainer(agent, tf.distribute.get_strategy(), max_bad_steps=1), []
    for batch in sequence_dataset(address, signature, N, 0.0, 1).take(7):
        arguments = train_arguments(agent, batch.unrolls)
        losses.append(trainer.train_sequences(**arguments, weights=batch.weights)[0])
    server.stop()
    return losses, seen


def v_trace(directory, is_whole):
    games = games_of(is_whole)
    network = functools.partial(MlpActorCriticNetwork, layer_units=(8,), lstm_units=4)
    factory = functools.partial(
        VTraceAgent, network=network, optimizer=tf.keras.optimizers.SGD(0.1), reduction="mean"
    )
    agent_factory.set_seed(3)
    agent = agent_factory.make_agent(factory, games)
    seen, loop = recording(agent), loop_of(games, agent, directory)
    trainer, losses = Trainer(agent, tf.distribute.get_strategy(), max_bad_steps=1), []
    assembler = UnrollAssembler(N, T, frame_stack=games.frame_stack)
    assembler.begin(loop.state)
    for step in itertools.islice(with_single_frames(games, loop.steps()), 7 * T):
        unrolls = assembler.add(*step, 0)
        if unrolls is not None:
            batch = to_batch(tf.nest.map_structure(tf.constant, unrolls))
            losses.append(trainer.train_once(**train_arguments(agent, batch))[0])
            assembler.begin(loop.state)
    return losses, seen


@pytest.mark.parametrize("train", [r2d2, v_trace])
def test_losses_and_observations_are_the_same(train, tmp_path):
    (whole, stacks), (single, restacked) = train(tmp_path, True), train(tmp_path, False)
    assert len(whole) == 7 and len(set(whole)) == 7
    np.testing.assert_allclose(single, whole, rtol=1e-6, atol=1e-6)
    np.testing.assert_array_equal(np.stack(restacked), np.stack(stacks))
