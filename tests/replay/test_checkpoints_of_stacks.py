"""Replay checkpoints of whole stacks, of the time before single frames: refused by every role."""

import functools
import types

import pytest
import tensorflow as tf

from tests.support.running_roles import free_port
from tests.support.stacked_games import StackedGames
from tfdrl.agents.r2d2 import R2D2Agent
from tfdrl.agents.v_trace import VTraceAgent
from tfdrl.architectures import apex, gorila_unbundled, impala, r2d2, seed_replay
from tfdrl.errors import ConfigurationError
from tfdrl.experience.frame_stacks import Frames
from tfdrl.networks.actor_critic_networks import MlpActorCriticNetwork
from tfdrl.networks.recurrent_q_networks import MlpRecurrentQNetwork
from tfdrl.replay import transition_table, unroll_tables
from tfdrl.replay.sequence_writer import SEQUENCES
from tfdrl.replay.server import ReplayServer
from tfdrl.runtime import agent_factory
from tfdrl.topology import Address, Context

N_STEP, T, STACK = 3, 5, 4

R2D2 = functools.partial(
    R2D2Agent,
    network=functools.partial(MlpRecurrentQNetwork, layer_units=(8,), lstm_units=4),
    optimizer=tf.keras.optimizers.SGD(0.1),
    burn_in_steps=2,
)
V_TRACE = functools.partial(
    VTraceAgent,
    network=functools.partial(MlpActorCriticNetwork, layer_units=(8,)),
    optimizer=tf.keras.optimizers.SGD(0.1),
)
SETTINGS = {
    "environment": lambda num_envs, training, seed: StackedGames(num_envs, STACK),
    "table": None,
    "replay_checkpoint_period_secs": 0,
}


def transitions_of_stacks():
    """s_t and s_{t+m}, as they were shown."""
    games = StackedGames(1, STACK)
    games.frame_stack = 1
    signature = transition_table.transition_signature(games, N_STEP)
    assert signature.observation.shape == (2, 6, 6, STACK)
    return [transition_table.replay_table(signature)]


def transitions_with_depths():
    """The frames of n+k steps, and a column of its own for the stacks' depths."""
    signature = transition_table.transition_signature(StackedGames(1, STACK), N_STEP)
    frames = Frames(signature.observation, tf.TensorSpec([N_STEP + 1], tf.uint8))
    step = tf.TensorSpec([1, 5], tf.float32)
    return [transition_table.replay_table(signature._replace(observation=frames, step=step))]


def unrolls_of_stacks(agent, steps, name):
    games = StackedGames(1, STACK)
    policy = agent_factory.make_agent(agent, games).collect_policy
    signature = unroll_tables.unroll_signature(games, policy, steps)
    assert signature.steps.observation.shape == (steps + 1, 6, 6, STACK)
    if name == unroll_tables.QUEUE:
        return unroll_tables.unroll_tables(signature, 10, 10)
    return [transition_table.replay_table(unroll_tables.with_row(signature), name=name)]


@pytest.mark.parametrize(
    ("role", "settings", "old_tables"),
    [
        (apex.replay, {"n_step": N_STEP}, transitions_of_stacks),
        (apex.replay, {"n_step": N_STEP}, transitions_with_depths),
        (gorila_unbundled.replay, {"n_step": N_STEP}, transitions_of_stacks),
        (
            r2d2.replay,
            {"agent": R2D2, "sequence_steps": T},
            functools.partial(unrolls_of_stacks, R2D2, 2 + T, SEQUENCES),
        ),
        (
            seed_replay.replay,
            {"agent": R2D2, "unroll_steps": T},
            functools.partial(unrolls_of_stacks, R2D2, 2 + T, SEQUENCES),
        ),
        (
            impala.replay,
            {
                **{"agent": V_TRACE, "unroll_steps": T, "fresh_unrolls": 2},
                **{"queue_capacity_unrolls": 10, "replay_share": 0.5, "replay_capacity_unrolls": 9},
            },
            functools.partial(unrolls_of_stacks, V_TRACE, T, unroll_tables.QUEUE),
        ),
    ],
    ids=["apex", "apex, depths apart", "gorila", "r2d2", "seed_r2d2", "impala"],
)
def test_they_are_refused_and_kept(tmp_path, role, settings, old_tables):
    server = ReplayServer(old_tables, Address("127.0.0.1", free_port()), tmp_path / "replay")
    checkpoint = server.checkpoint()
    server.stop()
    config = types.SimpleNamespace(**SETTINGS, **settings)
    experiment = types.SimpleNamespace(architecture=config, seed=0)
    context = Context("replay", 0, 1, tmp_path, Address("127.0.0.1", free_port()))
    context.stop.set()
    with pytest.raises(ConfigurationError, match=r"hold items of .* of another version of tfdrl"):
        role(experiment, context)
    assert checkpoint.is_dir()
