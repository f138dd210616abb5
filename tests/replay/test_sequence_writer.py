"""Sequences of R2D2's actors: the same, with the same priorities, as SEED's learner makes."""

import asyncio

import numpy as np
import pytest
import tensorflow as tf
import tree
from tf_agents.trajectories import time_step

from tfdrl.acting.exploration import collect_policy
from tfdrl.agents.r2d2 import R2D2Agent
from tfdrl.environments.registry import gym_environment
from tfdrl.experience.unroll_queue import UnrollQueue
from tfdrl.inference.environments import CentralInference
from tfdrl.inference.policy import BatchedPolicy
from tfdrl.networks.recurrent_q_networks import MlpRecurrentQNetwork
from tfdrl.replay.sequence_writer import SequenceAssembler, SequenceWriter
from tfdrl.rpc import environment_specs, inference_pb2
from tfdrl.runtime import agent_factory
from tfdrl.runtime.compiled import act_function
from tfdrl.topology import Address

_ENVS, _BURN_IN, _T = 3, 4, 6
_STEPS = _BURN_IN + _T
_COUNT = 5 * _T + 1


def catch():
    return gym_environment(_ENVS, True, 5, id="tfdrl/Catch-v0", kwargs={"rows": 5})


@pytest.fixture(scope="module")
def agent():
    def network(input_spec, action_spec):
        return MlpRecurrentQNetwork(input_spec, action_spec, layer_units=(8,), lstm_units=6)

    def factory(*specs, **arguments):
        optimizer = tf.keras.optimizers.Adam(1e-3)
        settings = {"network": network, "optimizer": optimizer, "burn_in_steps": _BURN_IN}
        return R2D2Agent(*specs, n_step=2, **settings, **arguments)

    agent_factory.set_seed(3)
    with catch() as environment:
        return agent_factory.make_agent(factory, environment)


def by_an_actor(agent, count=_COUNT, epsilon=0.0, within_episodes=False):
    """What an actor of R2D2 makes of `count` steps: [(sequences, info at their last step)]."""
    policy = collect_policy(agent, np.full(_ENVS, epsilon), seed=1)
    act, state, found = act_function(policy), policy.get_initial_state(_ENVS), []
    assembler = SequenceAssembler(_ENVS, _STEPS, _BURN_IN, within_episodes)
    with catch() as environment:
        now = environment.reset()
        for _ in range(count):
            step = act(*now, state)
            before, state = state, step.state
            action, info = tree.map_structure(np.asarray, (step.action, step.info))
            then = environment.step(action)
            complete = assembler.add(now, action, then, info, (before, state), 0)
            if complete is not None:
                found.append(tree.map_structure(np.copy, complete))
            now = then
    return found


def by_seeds_learner(agent, within_episodes):
    """The same of a learner of SEED that plays the same episodes."""
    found, queue = [], UnrollQueue(_ENVS)

    def put(collected):
        queue.put(collected)
        unrolls = queue.take(_ENVS, 0.0)
        if unrolls is not None:
            found.append(tree.map_structure(np.copy, (unrolls, queue.next_info)))

    with catch() as environment:
        specs = environment_specs.environment_specs(environment)
        inference = BatchedPolicy(
            agent.collect_policy,
            specs,
            environments=_ENVS,
            rows_wanted=lambda: _ENVS,
            max_rows=_ENVS,
            time_limit_secs=0.05,
            epsilon=np.zeros(_ENVS),
        )
        player = CentralInference(
            inference,
            specs,
            environments=_ENVS,
            max_block=_ENVS,
            unroll_steps=_STEPS,
            overlap=_BURN_IN,
            within_episodes=within_episodes,
            put=put,
        )
        player.open(lambda report: None, lambda: 0)
        hello = inference_pb2.Hello(first_environment=0, environments=_ENVS)
        hello.sender.run_id, hello.sender.role = 1, "actor"
        block = player.join(hello)

        async def play():
            now = environment.reset()
            for index in range(_COUNT):
                leaves = environment_specs.flatten(environment.observation_spec, now.observation)
                (action,) = await block.act(
                    index, now._replace(observation=leaves), inference_pb2.Steps()
                )
                now = environment.step(action)

        asyncio.run(play())
        player.close(None)
    return found


@pytest.mark.parametrize("within_episodes", [False, True])
def test_actors_and_seeds_learner_make_the_same_sequences_and_priorities(agent, within_episodes):
    ours = by_an_actor(agent, within_episodes=within_episodes)
    theirs = by_seeds_learner(agent, within_episodes)
    assert len(ours) == len(theirs) >= 5
    stop = None
    writer = SequenceWriter(Address("localhost", 1), agent, 1, 1.0, stop)
    for (sequences, info), (expected, expected_info) in zip(ours, theirs):
        skipped = {"time_secs"}
        for name in set(sequences._fields) - skipped:
            left, right = getattr(sequences, name), getattr(expected, name)
            for x, y in zip(tree.flatten(left), tree.flatten(right)):
                np.testing.assert_allclose(x, y, rtol=1e-6, atol=1e-6, err_msg=name)
        np.testing.assert_allclose(info.max_q, expected_info.max_q, rtol=1e-6)
        np.testing.assert_allclose(
            writer.priorities(sequences, info), writer.priorities(expected, expected_info)
        )
    starts = np.concatenate([sequences.steps.step_type[:, 1:] for sequences, _ in ours])
    assert {0, 1, 2} == set(starts.ravel())
    first = ours[0][0]
    if within_episodes:  # after a FIRST step none is LAST but the one at the end
        began = np.cumsum(starts == 0, axis=1) > 0
        assert not (began & (starts == 2))[:, :-1].any() and (starts[:, -1] == 2).any()
        return
    assert not first.steps.observation[:, :_BURN_IN].any(), "the first has no burn-in of its own"
    states = tree.flatten(ours[1][0].policy_state.network)
    assert max(np.abs(state).max() for state in states) > 0.01, "the state before step 0"
    assert (starts[:, :-1] == 2).any(), "sequences go on through the ends of episodes"


def test_sequences_overlap_by_the_burn_in_and_leave_no_step_out(agent):
    found = [sequences for sequences, _ in by_an_actor(agent, epsilon=0.5)]
    for before, after in zip(found, found[1:]):
        for name in ("steps", "action", "info"):
            for x, y in zip(
                tree.flatten(getattr(before, name)), tree.flatten(getattr(after, name))
            ):
                shared = _BURN_IN + (name == "steps")
                np.testing.assert_array_equal(x[:, _T : _T + shared], y[:, :shared])


def test_actors_explore_by_their_own_epsilon_and_seed(agent):
    epsilon = np.array([0.0, 1.0, 0.5])
    policy = collect_policy(agent, epsilon, seed=1)
    np.testing.assert_allclose(policy.get_initial_state(_ENVS).epsilon, epsilon)
    other = collect_policy(agent, epsilon, seed=2)
    with catch() as environment:
        now = environment.reset()
    actions = []
    for each in (policy, other, agent.actor_policy(epsilon, 1)):
        act, state, taken = act_function(each), each.get_initial_state(_ENVS), []
        for _ in range(40):
            taken.append(act(*now, state).action.numpy())  # of the same step again and again
        actions.append(np.array(taken))
    greedy = agent.policy.action(
        tree.map_structure(tf.constant, time_step.TimeStep(*now)),
        agent.policy.get_initial_state(_ENVS),
    ).action.numpy()
    assert (actions[0][:, 0] == greedy[0]).all() and len(set(actions[0][:, 1])) > 1
    assert not np.array_equal(actions[0], actions[1])
    np.testing.assert_array_equal(actions[0], actions[2])
