"""The acting policy: how often it explores in each environment, and what it reports."""

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import BoundedTensorSpec
from tf_agents.trajectories import time_step as ts

from tfdrl.agents.n_step_dqn import NStepDqnAgent
from tfdrl.networks.q_networks import MlpQNetwork
from tfdrl.runtime.compiled import act_function

STATES, ACTIONS = 6, 4


@pytest.fixture(scope="module")
def agent():
    made = NStepDqnAgent(
        ts.time_step_spec(tf.TensorSpec([STATES], tf.float32)),
        BoundedTensorSpec([], tf.int32, 0, ACTIONS - 1),
        network=lambda s, a: MlpQNetwork(s, a, layer_units=()),
        optimizer=tf.keras.optimizers.SGD(),
    )
    kernel, bias = made._q_network.variables
    kernel.assign(np.random.default_rng(0).normal(size=(STATES, ACTIONS)))
    bias.assign(np.zeros(ACTIONS))
    return made


def steps_of(states):
    """A MID step of each environment, one-hot observations."""
    n = len(states)
    observation = np.eye(STATES, dtype=np.float32)[states]
    return np.full(n, 1, np.int32), np.zeros(n, np.float32), np.ones(n, np.float32), observation


def table_of(agent):
    return agent.q_network.variables[0].numpy()


def play(agent, epsilon, seed, states, count):
    act = act_function(agent.actor_policy(epsilon, seed))
    arguments = steps_of(states)
    return np.array([act(*arguments, ()).action.numpy() for _ in range(count)])


def test_exploration_frequencies_of_each_environment(agent):
    """An action other than the greedy one is taken with probability epsilon (A - 1) / A."""
    epsilon, states, count = np.array([0.0, 0.1, 1.0, 0.5, 0.5]), np.arange(5), 3000
    actions = play(agent, epsilon, 1, states, count)
    greedy = table_of(agent)[states].argmax(axis=1)
    for i, e in enumerate(epsilon):
        wanted = np.full(ACTIONS, e / ACTIONS)
        wanted[greedy[i]] += 1 - e
        observed = np.bincount(actions[:, i], minlength=ACTIONS) / count
        deviation = np.sqrt(wanted * (1 - wanted) / count)
        assert (np.abs(observed - wanted) <= 4 * deviation).all(), (e, observed, wanted)
    # Each environment draws for itself: if one explores, that says nothing about its neighbour.
    explored = actions[:, 3:] != greedy[3:]
    assert explored.all(axis=1).mean() == pytest.approx((0.5 * 3 / 4) ** 2, abs=0.03)


def test_greedy_without_epsilon(agent):
    states = np.arange(STATES)
    actions = play(agent, np.zeros(STATES), 1, states, 20)
    np.testing.assert_array_equal(actions, np.tile(table_of(agent).argmax(axis=1), (20, 1)))
    greedy = agent.policy.action(ts.TimeStep(*map(tf.constant, steps_of(states))))
    np.testing.assert_array_equal(greedy.action, actions[0])


def test_a_scalar_epsilon_is_for_all(agent):
    states = np.arange(STATES)
    actions = play(agent, 1.0, 3, states, 400)
    counts = np.bincount(actions.reshape(-1), minlength=ACTIONS) / actions.size
    np.testing.assert_allclose(counts, 1 / ACTIONS, atol=0.04)


def test_reported_values_are_of_the_action_taken(agent):
    act = act_function(agent.actor_policy(np.full(STATES, 0.7), 5))
    q, everyone = table_of(agent), np.arange(STATES)
    explored = 0
    for _ in range(20):
        step = act(*steps_of(everyone), ())
        action = step.action.numpy()
        np.testing.assert_allclose(step.info.q_taken, q[everyone, action], rtol=1e-6)
        np.testing.assert_allclose(step.info.max_q, q.max(axis=1), rtol=1e-6)
        explored += (action != q.argmax(axis=1)).sum()
    assert explored > 20


def test_seeds(agent):
    states, epsilon = np.arange(STATES), np.full(STATES, 0.5)
    first = play(agent, epsilon, 7, states, 30)
    np.testing.assert_array_equal(first, play(agent, epsilon, 7, states, 30))
    assert (first != play(agent, epsilon, 8, states, 30)).any()


def test_set_epsilon_needs_no_new_policy(agent):
    policy = agent.actor_policy(np.ones(STATES), 1)
    act, arguments = act_function(policy), steps_of(np.arange(STATES))
    greedy = table_of(agent).argmax(axis=1)
    random = [act(*arguments, ()).action.numpy() for _ in range(10)]
    assert (np.array(random) != greedy).any()
    policy.set_epsilon(np.zeros(STATES))
    for _ in range(10):
        np.testing.assert_array_equal(act(*arguments, ()).action, greedy)


def test_the_generator_continues_from_a_checkpoint(agent, tmp_path):
    states, epsilon = np.arange(STATES), np.full(STATES, 0.5)
    policy, other = agent.actor_policy(epsilon, 1), agent.actor_policy(epsilon, 2)
    act, act_other = act_function(policy), act_function(other)
    arguments = steps_of(states)
    act(*arguments, ())
    path = tf.train.Checkpoint(generator=policy.generator).save(str(tmp_path / "c"))
    went_on = [act(*arguments, ()).action.numpy() for _ in range(20)]
    tf.train.Checkpoint(generator=other.generator).restore(path)
    again = [act_other(*arguments, ()).action.numpy() for _ in range(20)]
    np.testing.assert_array_equal(went_on, again)


def test_actions_are_of_the_specs_type(agent):
    action = agent.actor_policy(0.5, 1).action(ts.TimeStep(*map(tf.constant, steps_of([0, 1]))))
    assert action.action.dtype == tf.int32 and action.action.shape == [2]


def test_what_a_learner_publishes_is_the_network_alone(agent):
    """Not epsilon, which each actor has for itself."""
    published = {v.ref() for v in agent.collect_policy.variables()}
    assert published == {v.ref() for v in agent.q_network.variables}
    assert published <= {v.ref() for v in agent.actor_policy(0.5, 1).variables()}
