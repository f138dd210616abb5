"""What SEED's learner makes of single frames: losses as of stacks, sequences as the replay's."""

import asyncio
import functools

import numpy as np
import pytest
import tensorflow as tf
from stacked_games import StackedGames
from test_inference_policy import _T, Table

from tfdrl.agents.r2d2 import R2D2Agent
from tfdrl.agents.v_trace import VTraceAgent
from tfdrl.experience.frame_stacks import thin, thin_signature
from tfdrl.experience.unroll_batches import to_batch, train_arguments
from tfdrl.inference.environments import CentralInference
from tfdrl.learning.trainer import Trainer
from tfdrl.networks.actor_critic_networks import MlpActorCriticNetwork
from tfdrl.networks.recurrent_q_networks import MlpRecurrentQNetwork
from tfdrl.replay.unroll_tables import unroll_signature
from tfdrl.rpc import environment_specs
from tfdrl.rpc.inference_messages import StepsEncoder, StepsValidator, parse_request
from tfdrl.runtime import agent_factory

_N, _BURN_IN = 3, 2


def v_trace(environment):
    network = functools.partial(MlpActorCriticNetwork, layer_units=(8,), lstm_units=6)
    return make(environment, VTraceAgent, network)


def r2d2(environment):
    network = functools.partial(MlpRecurrentQNetwork, layer_units=(8,), lstm_units=6)
    settings = {"burn_in_steps": _BURN_IN, "n_step": 2, "target_update_period_steps": 2}
    return make(environment, R2D2Agent, network, **settings)


def make(environment, agent, network, **settings):
    agent_factory.set_seed(3)
    optimizer = tf.keras.optimizers.Adam(1e-2)
    factory = functools.partial(agent, network=network, optimizer=optimizer, **settings)
    return agent_factory.make_agent(factory, environment)


def unrolls_and_steps(agent, overlap):
    """The learner's unrolls of games that end or go on, and the steps that were shown."""
    games = StackedGames(_N, seed=2)
    table = Table(agent, games, environments=_N)
    table.player = CentralInference(
        table.inference,
        table.specs,
        environments=_N,
        max_block=_N,
        unroll_steps=overlap + _T,
        overlap=overlap,
        put=table._put,
    )
    table.player.open(table.reports.append, lambda: 0)
    block, shown = table.join(rows=_N), [games.reset()]
    specs = environment_specs.environment_specs(games)
    encoder, validator = StepsEncoder(specs, _N), StepsValidator(specs, _N)

    async def play():
        for index in range(5 * _T + 1):
            sent = parse_request(encoder.encode(index, shown[-1], 0, None))
            (action,) = await block.act(index, validator.time_steps(sent), sent.message)
            shown.append(games.step(action))

    asyncio.run(play())
    table.player.close(None)
    return table.unrolls, shown


def with_stacks_shown(unrolls, shown, number, overlap):
    """The same unrolls with the stacks of the environments themselves."""
    start, zeros = number * _T - overlap, np.zeros_like(shown[0].observation)
    stacks = [
        shown[t].observation if t >= 0 else zeros for t in range(start, start + overlap + _T + 1)
    ]
    return unrolls._replace(steps=unrolls.steps._replace(observation=np.stack(stacks, axis=1)))


@pytest.mark.parametrize(
    ("make_agent", "overlap"), [(v_trace, 0), (r2d2, _BURN_IN)], ids=["V-trace", "R2D2"]
)
def test_losses_are_those_of_the_stacks_that_were_shown(make_agent, overlap):
    games = StackedGames(1)
    single, stacked = make_agent(games), make_agent(games)
    found, shown = unrolls_and_steps(single, overlap)
    assert len(found) == 5
    one, other = (Trainer(a, tf.distribute.get_strategy(), 1) for a in (single, stacked))
    for number, unrolls in enumerate(found):
        whole = with_stacks_shown(unrolls, shown, number, overlap)
        if overlap:
            weights = {"weights": np.ones(_N, np.float32)}
            given = train_arguments(single, to_batch(unrolls))
            loss, priority, _ = one.train_sequences(**given, **weights)
            given = train_arguments(stacked, to_batch(whole))
            expected, priorities, _ = other.train_sequences(**given, **weights)
            np.testing.assert_allclose(priority, priorities, rtol=1e-6)
        else:
            loss, _ = one.train_unrolls(unrolls)
            expected, _ = other.train_unrolls(whole)
        assert loss == pytest.approx(expected, rel=1e-6)


def test_sequences_are_what_the_replay_was_told():
    games = StackedGames(_N)
    agent = r2d2(games)
    signature = thin_signature(unroll_signature(games, agent.collect_policy, _BURN_IN + _T), 4)
    (unrolls, *_), _ = unrolls_and_steps(agent, _BURN_IN)
    assert thin(unrolls, 4) is unrolls
    tf.nest.assert_same_structure(unrolls.steps, signature.steps)
    for spec, leaf in zip(tf.nest.flatten(signature[:4]), tf.nest.flatten(unrolls[:4])):
        assert (tuple(spec.shape), spec.dtype) == (leaf.shape[1:], leaf.dtype)
