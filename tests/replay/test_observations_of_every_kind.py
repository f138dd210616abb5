"""Observations of every kind of space on all their ways: actor, wire, replay, learner, export."""

import functools

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
import tree
import unroll_servers
from gymnasium import spaces
from tf_agents.trajectories import time_step as ts

from tfdrl.agents import optimizers
from tfdrl.agents.n_step_dqn import NStepDqnAgent
from tfdrl.environments import gym_environment
from tfdrl.evaluation.episodes import summarise
from tfdrl.evaluation.policy_export import PolicyExport
from tfdrl.experience.transitions import TransitionAssembler, to_trajectory
from tfdrl.experience.uniform_replay import UniformReplay
from tfdrl.experience.unroll_assembler import UnrollAssembler
from tfdrl.experience.unroll_batches import train_arguments
from tfdrl.networks.q_networks import MlpQNetwork
from tfdrl.replay.unroll_dataset import unroll_dataset
from tfdrl.replay.unroll_tables import unroll_signature
from tfdrl.rpc.environment_specs import environment_specs, flatten
from tfdrl.rpc.inference_messages import StepsEncoder, StepsValidator, parse_request
from tfdrl.runtime import agent_factory
from tfdrl.runtime.compiled import act_function

NUM_ENVS, T = 3, 4
_TYPES = "float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool"


class Everything(gymnasium.Env):
    """Samples of every kind of space; the return is the number of steps, 5."""

    observation_space = spaces.Dict(
        {dtype: spaces.Box(0, 1, (3,), np.dtype(dtype)) for dtype in _TYPES.split()}
        | {
            "room": spaces.Discrete(5, start=-2, dtype=np.int8),
            "hand": spaces.MultiDiscrete([[2, 3], [4, 5]]),
            "keys": spaces.MultiBinary(3),
            "speed": spaces.Box(-1, 1, (), np.float32),
            "both": spaces.Tuple((spaces.Discrete(3), spaces.Box(0, 1, (2, 2, 1)))),
        }
    )
    action_space = spaces.MultiDiscrete([2, 3])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        assert self.action_space.contains(np.asarray(action, np.int64))
        self.t += 1
        return self.observation_space.sample(), 1.0, self.t == 5, False, {}


class OneAction(Everything):
    action_space = spaces.Discrete(2)


@pytest.fixture
def environments():
    for kind in (Everything, OneAction):
        gymnasium.register(f"tfdrl_tests/{kind.__name__}-v0", entry_point=kind)
    make = functools.partial(gym_environment, NUM_ENVS, True, 1)
    yield lambda kind: make(id=f"tfdrl_tests/{kind.__name__}-v0")
    for kind in (Everything, OneAction):
        del gymnasium.registry[f"tfdrl_tests/{kind.__name__}-v0"]


def assert_same(found, right):
    for one, other in zip(tree.flatten(found), tree.flatten(right), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_they_travel_to_seeds_learner(environments):
    with environments(Everything) as environment:
        specs, steps = environment_specs(environment), environment.reset()
    sent = StepsEncoder(specs, NUM_ENVS).encode(0, steps, 0, None)
    arrived = StepsValidator(specs, NUM_ENVS).time_steps(parse_request(sent))
    assert_same(arrived.observation, flatten(specs.observation_nest, steps.observation))


def played(environment, policy, steps):
    """(time step, action, next time step, info) of so many steps."""
    act, now, state = act_function(policy), environment.reset(), policy.get_initial_state(NUM_ENVS)
    for _ in range(steps):
        step = act(*now, state)
        action, info = tf.nest.map_structure(lambda x: x.numpy(), (step.action, step.info))
        after, state = environment.step(action), step.state
        yield now, action, after, info, state
        now = after


def test_unrolls_of_them_are_trained_on(environments, monkeypatch):
    with environments(Everything) as environment:
        agent = unroll_servers.recurrent_agent(environment)
        signature = unroll_signature(environment, agent.collect_policy, T)
        assembler = UnrollAssembler(NUM_ENVS, T)
        assembler.begin(agent.collect_policy.get_initial_state(NUM_ENVS))
        for *step, _ in played(environment, agent.collect_policy, T):
            unrolls = assembler.add(*step, version=0)
    monkeypatch.setattr(unroll_servers, "SIGNATURE", signature)
    with unroll_servers.serving() as address, unroll_servers.writers() as start:
        start(address).write(unrolls)
        batch = next(iter(unroll_dataset(address, signature, NUM_ENVS)))
    order = np.argsort(batch.experience.observation["float32"][:, 0, 0])
    right = np.argsort(unrolls.steps.observation["float32"][:, 0, 0])
    assert_same(
        tree.map_structure(lambda x: x.numpy()[order], batch.experience.observation),
        tree.map_structure(lambda x: x[right], unrolls.steps.observation),
    )
    assert np.isfinite(agent.train(**train_arguments(agent, batch)).loss)


def test_transitions_of_them_are_trained_on_and_the_policy_is_exported(environments, tmp_path):
    def factory(*specs, **kwargs):
        return NStepDqnAgent(*specs, network=MlpQNetwork, optimizer=optimizers.sgd(), **kwargs)

    with environments(OneAction) as environment:
        agent = agent_factory.make_agent(factory, environment)
        policy = agent.actor_policy(np.full(NUM_ENVS, 0.5), 1)
        replay = UniformReplay(100, NUM_ENVS, 1, agent.gamma)
        assembler, blocks = TransitionAssembler(NUM_ENVS, 1, agent.gamma, T), []
        for *step, _ in played(environment, policy, 2 * T):
            replay.add(*step[:3])
            blocks.append(assembler.add(*step, version=0))
        now = ts.TimeStep(*(tf.nest.map_structure(tf.constant, x) for x in environment.reset()))
    (last,) = [block for block in blocks if block is not None][-1:]
    assert {leaf.dtype for leaf in tree.flatten(last.rows.observation)} == {
        np.dtype(dtype) for dtype in ("float16", "float32", "uint8", "int32", "int64")
    }
    batch = replay.sample(8)
    experience = tf.nest.map_structure(tf.constant, to_trajectory(batch))
    assert np.isfinite(agent.train(experience, tf.ones([8])).loss)

    export = PolicyExport(agent.policy, tmp_path / "policy")
    assert export.offer(summarise(np.array([5.0]), 1, 1, 0.0))
    loaded = tf.saved_model.load(str(tmp_path / "policy"))
    right = agent.policy.action(now).action
    np.testing.assert_array_equal(loaded.action(now, ()).action, right)
