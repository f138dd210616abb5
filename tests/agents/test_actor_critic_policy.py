"""Acting by an actor-critic network, and that the learner sees what the actor saw."""

import functools

import numpy as np
import pytest
import table_networks as tables
import tensorflow as tf
import tree
from tf_agents.trajectories import time_step as ts

from tfdrl.agents import actor_critic_policy as acp
from tfdrl.experience.unroll_assembler import UnrollAssembler
from tfdrl.experience.unroll_batches import to_batch
from tfdrl.networks.actor_critic_networks import MlpActorCriticNetwork
from tfdrl.runtime.compiled import act_function
from tfdrl.types import FIRST, LAST, MID, TimeSteps

FEATURES, ACTIONS, SIZE, UNROLL_STEPS = 4, 3, 2, 5
SPECS = {"discrete": tables.discrete(ACTIONS), "gaussian": tables.continuous(SIZE)}
#: Episodes of 1, 2, 5 and 7 transitions: some begin, and some end, at each place in an unroll.
PERIODS = np.array([2, 3, 6, 8])
NUM_ENVS = len(PERIODS)


def make_agent(action, lstm_units=None, last_action_and_reward=True, **settings):
    """Its weights are large: what it is given shows in what it returns."""
    agent = tables.make_agent(
        SPECS[action],
        functools.partial(MlpActorCriticNetwork, layer_units=(8,), lstm_units=lstm_units),
        tf.TensorSpec([FEATURES], tf.float32),
        last_action_and_reward=last_action_and_reward,
        **settings,
    )
    random = np.random.default_rng(0)
    for variable in agent.network.variables:
        variable.assign(random.normal(size=variable.shape))
    return agent


def step_at(t):
    """Rewards far outside of [-1, 1]; half of the environments terminate, half are truncated."""
    random = np.random.default_rng([7, t])
    phase = t % PERIODS
    step_type = np.where(phase == 0, FIRST, np.where(phase == PERIODS - 1, LAST, MID))
    reward = np.where(step_type == FIRST, 0.0, 3 * random.normal(size=NUM_ENVS))
    discount = np.where(step_type == LAST, np.arange(NUM_ENVS) % 2, 1)
    observation = random.normal(size=(NUM_ENVS, FEATURES)).astype(np.float32)
    return TimeSteps(
        step_type.astype(np.int32), reward.astype(np.float32), discount.astype("f"), observation
    )


def acted(agent, unrolls, seed=1):
    """Consecutive batches of unrolls, as an actor makes them."""
    policy = agent.actor_policy(None, seed)
    act, state = act_function(policy), policy.get_initial_state(NUM_ENVS)
    assembler, batches = UnrollAssembler(NUM_ENVS, UNROLL_STEPS), []
    assembler.begin(state)
    for t in range(unrolls * UNROLL_STEPS):
        step = act(*step_at(t), state)
        state = step.state
        action, info = tf.nest.map_structure(lambda x: x.numpy(), (step.action, step.info))
        complete = assembler.add(step_at(t), action, step_at(t + 1), info, version=0)
        if complete is not None:
            batches.append(complete)
            assembler.begin(state)
    return batches


def learner_parameters(agent, unrolls):
    """The parameters of pi as the learner's loss sees them, nest of [B, T, ...]."""
    batch = to_batch(tree.map_structure(tf.constant, unrolls))
    observation, state = agent._network_input(
        batch.experience, batch.policy_state, batch.last_reward
    )
    (pi, _), _ = agent.network(
        observation, step_type=batch.experience.step_type, network_state=state, training=True
    )
    return tf.nest.map_structure(lambda x: x[:, :-1].numpy(), acp.parameters(pi))


def difference(agent, unrolls):
    """Largest difference of each step between the learner's pi and the actor's mu, [B, T]."""
    pairs = zip(tree.flatten(learner_parameters(agent, unrolls)), tree.flatten(unrolls.info))
    gaps = [np.abs(pi - mu).reshape(*mu.shape[:2], -1).max(-1) for pi, mu in pairs]
    return np.maximum.reduce(gaps)


@pytest.mark.parametrize("action", ["discrete", "gaussian"])
@pytest.mark.parametrize(("lstm_units", "is_told"), [(None, True), (6, False), (6, True)])
def test_the_learner_computes_what_the_actor_did(action, lstm_units, is_told):
    """At every step of every unroll: at starts of unrolls and of episodes, in between, at LAST."""
    agent = make_agent(action, lstm_units, is_told)
    batches = acted(agent, unrolls=8)
    for unrolls in batches:
        assert difference(agent, unrolls).max() < 1e-5
        batch = to_batch(tree.map_structure(tf.constant, unrolls))
        info = agent.loss(
            batch.experience, policy_state=batch.policy_state, last_reward=batch.last_reward
        ).extra
        assert info.log_rho < 1e-5 and info.clipped_rhos == 0
    first = np.stack([unrolls.steps.step_type[:, 0] for unrolls in batches])
    assert set(first.flat) == {FIRST, MID, LAST}


def shifted(leaf):
    return np.roll(leaf, 1, axis=1)


@pytest.mark.parametrize(
    "mistake",
    [
        lambda u, later: u._replace(policy_state=later.policy_state),
        lambda u, later: u._replace(policy_state=tree.map_structure(np.zeros_like, u.policy_state)),
        lambda u, later: u._replace(action=shifted(u.action)),
        lambda u, later: u._replace(steps=u.steps._replace(reward=shifted(u.steps.reward))),
        lambda u, later: u._replace(
            steps=u.steps._replace(step_type=np.full_like(u.steps.step_type, MID))
        ),
    ],
    ids=["state after", "no state", "last action", "last reward", "episode starts"],
)
def test_a_mistake_would_show(mistake):
    agent = make_agent("discrete", 6)
    batches = acted(agent, unrolls=3)
    assert difference(agent, mistake(batches[1], batches[2])).max() > 1e-2


def test_the_info_is_of_the_behaviour_not_of_what_was_learnt_since():
    agent = make_agent("discrete")
    (unrolls,) = acted(agent, unrolls=1)
    for variable in agent.network.variables:
        variable.assign(0.9 * variable)
    assert difference(agent, unrolls).max() > 1e-2


def test_what_the_network_is_told():
    """One-hot action and reward; at an episode's start no action, which is not action 0."""
    spec, eye = tables.discrete(ACTIONS), np.eye(ACTIONS)
    step_type = tf.constant([FIRST, MID, LAST, MID, FIRST])
    action, reward = tf.constant([2, 2, 0, 1, 0]), tf.constant([0.5, 0.5, 7.0, -7.0, -1.0])
    found = acp.network_input({"a": reward}, step_type, action, reward, spec, 1.0)
    told = np.stack([0 * eye[2], eye[2], eye[0], eye[1], 0 * eye[0]])
    np.testing.assert_array_equal(found.last_action, told)
    np.testing.assert_array_equal(found.last_reward, [0.0, 0.5, 1.0, -1.0, 0.0])
    assert found.observation["a"] is reward
    # The same with time as a second dimension.
    rows = [x[None] for x in (step_type, action, reward)]
    sequence = acp.network_input((), *rows, spec, 1.0)
    np.testing.assert_array_equal(sequence.last_action[0], found.last_action)
    np.testing.assert_array_equal(sequence.last_reward[0], found.last_reward)
    whole = acp.network_input((), step_type, action, reward, spec, None)
    np.testing.assert_array_equal(whole.last_reward, [0.0, 0.5, 7.0, -7.0, 0.0])
    odd = tf.constant([np.inf, np.nan, -np.inf, 1e30, np.nan])
    for clip, expected in ((None, [0, 0, 0, 1e30, 0]), (1.0, [0, 0, -1, 1, 0])):
        told = acp.network_input((), step_type, action, odd, spec, clip).last_reward
        np.testing.assert_array_equal(told, np.float32(expected))


def test_what_the_network_is_told_of_a_continuous_action():
    spec = tf.TensorSpec([2, 2], tf.float32)
    action = tf.reshape(tf.range(12.0), [3, 2, 2])
    found = acp.network_input((), tf.constant([MID, FIRST, LAST]), action, tf.zeros([3]), spec, 1.0)
    np.testing.assert_array_equal(found.last_action, [[0, 1, 2, 3], [0] * 4, [8, 9, 10, 11]])


@pytest.mark.parametrize("action", ["discrete", "gaussian"])
def test_input_specs_are_those_of_the_inputs(action):
    spec, observation = SPECS[action], tf.TensorSpec([FEATURES], tf.float32)
    assert acp.input_spec(observation, spec, False) is observation
    found = acp.input_spec(observation, spec, True)
    zeros = tf.zeros([2, *spec.shape], spec.dtype)
    given = acp.network_input(
        tf.zeros([2, FEATURES]), tf.constant([MID, MID]), zeros, tf.zeros([2]), spec, 1.0
    )
    for wanted, tensor in zip(tf.nest.flatten(found), tf.nest.flatten(given)):
        assert tensor.shape[1:] == wanted.shape and tensor.dtype == wanted.dtype


@pytest.mark.parametrize("action", ["discrete", "gaussian"])
def test_parameters_there_and_back(action):
    rows = [tf.constant(r, tf.float32) for r in np.random.default_rng(0).normal(size=(2, 5, 3))]
    rows = rows[:1] if action == "discrete" else rows
    one, other = tables.distribution_of(rows), tables.distribution_of([row**2 for row in rows])
    again = acp.with_parameters(other, acp.parameters(one))
    value = one.sample(seed=[1, 2])
    np.testing.assert_array_equal(again.log_prob(value), one.log_prob(value))
    assert type(again) is type(one)
    # Parameters are what learners get; they are plain tensors of [5, ...].
    assert {leaf.shape[0] for leaf in tf.nest.flatten(acp.parameters(one))} == {5}


def mid_steps(states):
    n = len(states)
    return np.full(n, MID, np.int32), np.zeros(n, np.float32), np.ones(n, np.float32), states


def gaussian_table(mean, std):
    """An agent of one state."""
    policy = [np.array([mean]), np.log(np.array([std]))]
    return tables.table_agent(tables.continuous(len(mean)), policy, [0.0])


def test_sampled_actions_follow_the_distribution():
    logits = np.log([[0.1, 0.2, 0.7], [0.5, 0.5, 1e-9]])
    agent = tables.table_agent(tables.discrete(3), [logits], [0.0, 0.0])
    act, count = act_function(agent.actor_policy(None, 3)), 20_000
    states = np.arange(count, dtype=np.int32) % 2
    step = act(*mid_steps(states), ())
    np.testing.assert_allclose(step.info["logits"], logits[states], rtol=1e-5)
    for state, probability in enumerate(np.exp(logits)):
        found = np.bincount(step.action.numpy()[states == state], minlength=3) / (count / 2)
        np.testing.assert_allclose(found, probability, atol=0.02)
    assert step.action.dtype == tf.int32


def test_a_gaussian_s_actions_are_not_clipped_to_the_bounds():
    """mu's probability is of the action as it was sampled; the environment clips for itself."""
    agent = gaussian_table([0.5, -1.0], [2.0, 0.3])
    step = act_function(agent.actor_policy(None, 3))(*mid_steps(np.zeros(20_000, np.int32)), ())
    action = step.action.numpy()
    np.testing.assert_allclose(action.mean(0), [0.5, -1.0], atol=0.06)
    np.testing.assert_allclose(action.std(0), [2.0, 0.3], atol=0.05)
    assert np.abs(action).max() > agent.action_spec.maximum.max()


def test_the_greedy_policy_takes_the_mode_and_reports_nothing():
    logits = np.random.default_rng(0).normal(size=(6, ACTIONS))
    agent = tables.table_agent(tables.discrete(ACTIONS), [logits], np.zeros(6))
    step = act_function(agent.policy)(*mid_steps(np.arange(6, dtype=np.int32)), ())
    np.testing.assert_array_equal(step.action, logits.argmax(-1))
    assert step.info == ()
    step = act_function(gaussian_table([0.5, -1.0], [2.0, 0.3]).policy)(
        *mid_steps(np.zeros(2, np.int32)), ()
    )
    np.testing.assert_allclose(step.action, [[0.5, -1.0]] * 2)


def test_the_greedy_policy_is_told_and_remembers_as_the_sampling_one_is():
    """Evaluation gives the network the inputs of training."""
    agent = make_agent("discrete", 6)
    greedy, sampling = agent.policy, agent.actor_policy(None, 0)
    first = step_at(0)
    state = greedy.get_initial_state(NUM_ENVS)
    tf.nest.assert_same_structure(state, sampling.get_initial_state(NUM_ENVS))
    step = greedy.action(ts.TimeStep(*map(tf.constant, first)), state)
    np.testing.assert_array_equal(step.state.last_action, step.action)
    then = ts.TimeStep(*map(tf.constant, step_at(1)))
    acts = greedy.action(then, step.state).action
    logits = sampling.action(then, step.state).info["logits"].numpy()
    np.testing.assert_array_equal(acts, logits.argmax(-1))


def sequence(policy, count=20):
    act, arguments = act_function(policy), mid_steps(np.arange(4, dtype=np.int32))
    return np.array([act(*arguments, ()).action.numpy() for _ in range(count)])


def test_seeds(tmp_path):
    agent = tables.table_agent(tables.discrete(3), [np.zeros((4, 3))], np.zeros(4))
    first = sequence(agent.actor_policy(None, 7))
    np.testing.assert_array_equal(first, sequence(agent.actor_policy(None, 7)))
    assert (first != sequence(agent.actor_policy(None, 8))).any()
    # Environments draw for themselves, and so do steps.
    assert len(np.unique(first, axis=0)) > 5 and len(np.unique(first, axis=1).T) > 1
    policy, other = agent.actor_policy(None, 1), agent.actor_policy(None, 2)
    sequence(policy)
    path = tf.train.Checkpoint(generator=policy.generator).save(str(tmp_path / "c"))
    went_on = sequence(policy)
    tf.train.Checkpoint(generator=other.generator).restore(path)
    np.testing.assert_array_equal(went_on, sequence(other))


def test_what_a_learner_publishes_is_the_network_alone():
    agent = make_agent("discrete", 6)
    network = {v.ref() for v in agent.network.variables}
    assert {v.ref() for v in agent.collect_policy.variables()} == network
    assert {v.ref() for v in agent.actor_policy(None, 1).variables()} == network
