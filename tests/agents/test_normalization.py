"""Running statistics: numpy's over what was trained on, frozen where nobody learns."""

import functools
import itertools

import gin
import numpy as np
import preloaded
import pytest
import tensorflow as tf
from tf_agents.specs import BoundedTensorSpec
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from tfdrl import contracts
from tfdrl.acting.exploration import collect_policy
from tfdrl.agents import optimizers
from tfdrl.agents.n_step_dpg import NStepDpgAgent
from tfdrl.agents.n_step_dqn import NStepDqnAgent
from tfdrl.agents.normalization import NormalizedAgent, normalization
from tfdrl.agents.r2d2 import R2D2Agent
from tfdrl.agents.v_trace import VTraceAgent
from tfdrl.environments import gym_environment
from tfdrl.errors import ConfigurationError
from tfdrl.evaluation import saved_players
from tfdrl.evaluation.episodes import summarise
from tfdrl.evaluation.policy_export import PolicyExport
from tfdrl.experience.transitions import to_trajectory
from tfdrl.learning.trainer import Trainer
from tfdrl.networks.actor_critic_networks import MlpActorCriticNetwork
from tfdrl.networks.continuous_networks import mlp_actor, mlp_critic
from tfdrl.networks.q_networks import MlpQNetwork
from tfdrl.networks.recurrent_q_networks import MlpRecurrentQNetwork
from tfdrl.runtime import agent_factory
from tfdrl.runtime.checkpoints import Checkpoints
from tfdrl.types import Transitions

BATCH, GAMMA = 8, 0.9
#: Of CartPole's four observations: scales that no network could learn from as they are.
SCALE = np.array([1e4, 1e-4, 1.0, 50.0])
OFFSET = np.array([2e5, 0.0, -3.0, 0.0])
OBSERVATIONS = "normalization.observations = True"
RETURNS = "normalization.returns = True"


@pytest.fixture(autouse=True)
def _no_bindings():
    yield
    gin.clear_config()


def n_step_dqn(time_step_spec, action_spec, train_step_counter):
    return NStepDqnAgent(
        *(time_step_spec, action_spec),
        network=functools.partial(MlpQNetwork, layer_units=(8,)),
        optimizer=optimizers.adam(1e-2),
        gamma=GAMMA,
        target_update_period_steps=2,
        train_step_counter=train_step_counter,
    )


def v_trace(time_step_spec, action_spec, train_step_counter):
    return VTraceAgent(
        *(time_step_spec, action_spec),
        network=functools.partial(MlpActorCriticNetwork, layer_units=(8,), lstm_units=4),
        optimizer=optimizers.adam(1e-2),
        gamma=GAMMA,
        last_action_and_reward=True,
        train_step_counter=train_step_counter,
    )


def r2d2(time_step_spec, action_spec, train_step_counter):
    return R2D2Agent(
        *(time_step_spec, action_spec),
        network=functools.partial(MlpRecurrentQNetwork, layer_units=(8,), lstm_units=4),
        optimizer=optimizers.adam(1e-2),
        burn_in_steps=1,
        n_step=2,
        train_step_counter=train_step_counter,
    )


def n_step_dpg(time_step_spec, action_spec, train_step_counter):
    return NStepDpgAgent(
        *(time_step_spec, action_spec),
        actor_network=functools.partial(mlp_actor, layer_units=(8,)),
        critic_network=mlp_critic,
        actor_optimizer=optimizers.adam(1e-2),
        critic_optimizer=optimizers.adam(1e-2),
        train_step_counter=train_step_counter,
    )


def make_agent(factory, *bindings, id="CartPole-v1"):
    gin.clear_config()
    gin.parse_config(bindings)
    agent_factory.set_seed(3)
    with gym_environment(1, True, 0, id=id) as environment:
        return agent_factory.make_agent(factory, environment)


def experience_of(agent, seed, steps=2, scale=SCALE, offset=OFFSET, reward_scale=1.0):
    """A Trajectory [B, steps, ...] of `agent`'s collect policy."""
    random = np.random.default_rng(seed)
    shape = (BATCH, steps)
    spec = agent.collect_data_spec
    observation = offset + scale * random.normal(size=(*shape, *spec.observation.shape))
    zeros = tf.nest.map_structure(
        lambda leaf: np.zeros((*shape, *leaf.shape), leaf.dtype.as_numpy_dtype), spec
    )
    action = random.integers(0, 2, shape) if spec.action.dtype.is_integer else zeros.action
    batch = zeros._replace(
        step_type=random.integers(0, 3, shape).astype(np.int32),
        next_step_type=np.ones(shape, np.int32),
        observation=observation.astype(np.float32),
        action=action.astype(spec.action.dtype.as_numpy_dtype),
        reward=(reward_scale * random.normal(size=shape)).astype(np.float32),
        discount=random.choice([0.0, 1.0], shape).astype(np.float32),
    )
    return tf.nest.map_structure(tf.constant, batch)


def statistics_of(agent):
    return [sums.numpy() for sums in agent.statistics.sums]


def variables_of(agent):
    return [variable.numpy() for variable in agent.collect_policy.variables()]


def scaled(observation, data, clip=10.0):
    mean, std = data.astype(np.float64).mean(0), data.astype(np.float64).std(0)
    return np.clip((observation - mean) / std, -clip, clip).astype(np.float32)


def trained_on(*batches):
    """<float32>[N, D], without last steps."""
    leaves = [batch.observation.numpy()[:, :-1] for batch in batches]
    return np.concatenate([leaf.reshape(-1, leaf.shape[-1]) for leaf in leaves])


@pytest.mark.parametrize("factory", [n_step_dqn, v_trace, r2d2])
def test_statistics_are_numpy_s_over_what_was_trained_on(factory):
    agent = make_agent(factory, OBSERVATIONS)
    steps = 2 if factory is n_step_dqn else 5
    batches = [experience_of(agent, seed, steps) for seed in range(3)]
    for batch in batches:
        agent.train(batch, weights=tf.ones([BATCH]))
    data = trained_on(*batches)
    assert statistics_of(agent)[0][0] == len(data) == 3 * BATCH * (steps - 1)
    probe = experience_of(agent, 9).observation
    found = agent.statistics.scaled_observation(tf.constant(probe))
    np.testing.assert_allclose(found, scaled(probe, data), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("factory", [n_step_dqn, v_trace])
def test_the_agent_trains_on_what_numpy_scales(factory):
    """Batch after batch: the first is counted before it is trained on."""
    steps = 2 if factory is n_step_dqn else 5
    ours, plain = make_agent(factory, OBSERVATIONS), make_agent(factory)
    batches = [experience_of(plain, seed, steps) for seed in range(4)]
    for i, batch in enumerate(batches):
        loss = ours.train(batch, weights=tf.ones([BATCH])).loss
        known = trained_on(*batches[: i + 1])
        by_numpy = batch._replace(observation=tf.constant(scaled(batch.observation, known)))
        expected = plain.train(by_numpy, weights=tf.ones([BATCH])).loss
        np.testing.assert_allclose(loss, expected, rtol=1e-4)
    trained = [v for v in ours.policy.variables() if v.dtype == tf.float32]
    for mine, theirs in zip(trained, plain.policy.variables()):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4)


def results_of(strategy):
    """Statistics on each replica and variables after two steps."""
    with strategy.scope():
        agent = make_agent(n_step_dqn, OBSERVATIONS, RETURNS)
    trainer = Trainer(agent, strategy, max_bad_steps=1)
    for seed in range(2):
        batch = tf.nest.map_structure(lambda x: x[None], experience_of(agent, seed))
        trainer.train(batch, tf.ones([1, BATCH]))
    replicas = [strategy.experimental_local_results(sums) for sums in agent.statistics.sums]
    return replicas, variables_of(agent)


def compare_strategies():
    """Run by the test below in a process where two logical devices can still be made."""
    from tfdrl.learning.devices import strategy

    mirrored = strategy(kind="mirrored", devices=("CPU:0", "CPU:1"))
    (left, variables), (right, expected) = results_of(mirrored), results_of(strategy())
    for both, (alone,) in zip(left, right):
        assert len(both) == 2
        for local in both:
            np.testing.assert_allclose(local.numpy(), alone.numpy(), rtol=1e-12)
    for mine, theirs in zip(variables, expected):
        np.testing.assert_allclose(mine, theirs, rtol=1e-3, atol=1e-4)
    print("strategies agree")


def test_replicas_add_what_each_of_them_trains_on():
    output = preloaded.call("test_normalization:compare_strategies", __file__)
    assert "strategies agree" in output, output[-3000:]


def q_of(agent, observation):
    policy = collect_policy(agent, np.zeros(len(observation)), seed=0)
    return policy.action(ts.restart(tf.constant(observation), len(observation))).info.max_q.numpy()


def test_a_role_has_the_statistics_of_the_parameters_that_it_pulled():
    learner, actor = make_agent(n_step_dqn, OBSERVATIONS), make_agent(n_step_dqn, OBSERVATIONS)
    observation = experience_of(learner, 5).observation[:, 0]
    versions = []
    for seed in range(2):
        learner.train(experience_of(learner, seed), weights=tf.ones([BATCH]))
        versions.append((variables_of(learner), q_of(learner, observation)))
    for published, expected in versions[::-1]:
        for variable, value in zip(actor.collect_policy.variables(), published):
            variable.assign(value)
        np.testing.assert_allclose(q_of(actor, observation), expected, rtol=1e-6)
    before = statistics_of(actor)
    q_of(actor, 100 * observation)
    np.testing.assert_array_equal(statistics_of(actor), before)  # acting counts nothing


def test_a_checkpoint_and_the_exported_policy_have_them(tmp_path):
    agent = make_agent(v_trace, OBSERVATIONS)
    agent.train(experience_of(agent, 0, 5))
    observation = tf.constant(experience_of(agent, 5).observation[:, 0])
    now = ts.restart(observation, BATCH)
    state = agent.policy.get_initial_state(BATCH)
    expected = agent.policy.action(now, state).action
    Checkpoints(tmp_path, {"agent": agent}).save(1, {})
    assert PolicyExport(agent.policy, tmp_path / "policy").offer(summarise(np.ones(1), 1, 1, 0.0))
    exported = tf.saved_model.load(str(tmp_path / "policy"))
    found = exported.action(now, exported.get_initial_state(BATCH)).action
    np.testing.assert_array_equal(found, expected)
    again = make_agent(v_trace, OBSERVATIONS)
    Checkpoints(tmp_path, {"agent": again}).restore()
    np.testing.assert_array_equal(statistics_of(again), statistics_of(agent))
    np.testing.assert_array_equal(again.policy.action(now, state).action, expected)
    with gym_environment(1, False, 0, id="CartPole-v1") as environment:
        path = tmp_path / "checkpoint-1"
        player = saved_players.from_checkpoint(v_trace, environment, path, 1)  # tfdrl-evaluate
    found = player.act(*map(np.asarray, now), player.initial_state(BATCH))[0]
    np.testing.assert_array_equal(found, expected)


def test_rewards_are_divided_by_the_deviation_of_discounted_returns():
    steps = 5
    ours, plain = make_agent(v_trace, RETURNS), make_agent(v_trace)
    assert not ours.statistics.scaled_observation(()) and len(ours.statistics.sums) == 1
    batch = experience_of(ours, 0, steps, scale=1.0, offset=0.0, reward_scale=300.0)
    returns = []
    for reward, kind in zip(batch.reward.numpy(), batch.step_type.numpy()):
        running = 0.0
        for t in range(steps - 1):
            running = reward[t] + GAMMA * (0.0 if kind[t] == ts.StepType.FIRST else running)
            returns += [running] if kind[t] != ts.StepType.LAST else []
    std = np.std(returns)
    last_reward = tf.linspace(-900.0, 900.0, BATCH)
    loss = ours.train(batch, last_reward=last_reward).loss
    expected = plain.train(
        batch._replace(reward=batch.reward / std), last_reward=last_reward / std
    ).loss
    np.testing.assert_allclose(loss, expected, rtol=1e-4)


def test_priorities_stay_in_units_of_the_reward():
    ours = make_agent(n_step_dqn, RETURNS)
    batch = experience_of(ours, 0, scale=1.0, offset=0.0, reward_scale=300.0)
    found = ours.train(batch, weights=tf.ones([BATCH])).extra.td_error
    is_transition = batch.step_type.numpy()[:, 0] != ts.StepType.LAST
    std = np.std(batch.reward.numpy()[is_transition, 0])
    plain = make_agent(n_step_dqn)
    scaled_down = batch._replace(reward=batch.reward / std)
    expected = std * plain.train(scaled_down, weights=tf.ones([BATCH])).extra.td_error
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(
        q_of(ours, batch.observation[:, 0]), std * q_of(plain, batch.observation[:, 0]), rtol=1e-3
    )


@pytest.mark.parametrize(
    ("factory", "id"),
    [(n_step_dqn, "CartPole-v1"), (r2d2, "CartPole-v1"), (n_step_dpg, "Pendulum-v1")],
)
def test_what_the_roles_ask_of_an_agent_is_there(factory, id):
    plain, ours = make_agent(factory, id=id), make_agent(factory, OBSERVATIONS, id=id)
    assert isinstance(ours, NormalizedAgent) and not isinstance(plain, NormalizedAgent)
    offered = {"policy_state": 1, "last_reward": 2, "weights": 3}
    assert contracts.arguments_taken(ours, offered) == contracts.arguments_taken(plain, offered)
    assert contracts.burn_in_steps(ours) == contracts.burn_in_steps(plain)
    for protocol in (contracts.ExploringAgent, contracts.SequenceAgent):
        assert isinstance(ours, protocol) == isinstance(plain, protocol)
    policies = [collect_policy(agent, np.zeros(1), 0) for agent in (plain, ours)]
    assert isinstance(policies[0], contracts.AnnealedPolicy) == isinstance(
        policies[1], contracts.AnnealedPolicy
    )
    assert hasattr(policies[0], "generator") and policies[1].generator is not None
    agent_factory.check_gamma(ours, ours.gamma, "gamma")


def test_without_the_line_nothing_changes():
    assert isinstance(make_agent(n_step_dqn), NStepDqnAgent)


@pytest.mark.parametrize(
    ("bindings", "factory", "id", "text"),
    [
        ((OBSERVATIONS,), n_step_dqn, "tfdrl/RandomFrames-v0", "no vector of floats"),
        ((RETURNS,), r2d2, "CartPole-v1", "rescales by itself"),
        ((OBSERVATIONS, "normalization.clip = 0"), n_step_dqn, "CartPole-v1", "clip = 0 must be"),
    ],
)
def test_what_cannot_be_is_refused(bindings, factory, id, text):
    with pytest.raises(ConfigurationError, match=text):
        make_agent(factory, *bindings, id=id)


def test_clipping_is_a_setting():
    for clip, expected in (("10.0", 10.0), ("2.5", 2.5), ("None", 1e5)):
        agent = make_agent(n_step_dqn, OBSERVATIONS, f"normalization.clip = {clip}")
        agent.train(experience_of(agent, 0, scale=1.0, offset=0.0), weights=tf.ones([BATCH]))
        found = agent.statistics.scaled_observation(tf.fill([1, 4], 1e6))
        assert np.all(found > 0.5 * expected) and (expected == 1e5 or np.all(found == expected))


def test_images_counts_and_masks_beside_vectors_are_left_alone():
    from tfdrl.agents.running_statistics import RunningStatistics

    specs = {
        "image": tf.TensorSpec([8, 8, 3], tf.float32),
        "mask": tf.TensorSpec([3], tf.float32),
        "counts": tf.TensorSpec([3], tf.int32),
        "vector": tf.TensorSpec([2], tf.float32),
        "number": tf.TensorSpec([], tf.float64),
    }
    values = {
        name: np.random.default_rng(0)
        .integers(0, 9, (4, 3, *spec.shape))
        .astype(spec.dtype.as_numpy_dtype)
        for name, spec in specs.items()
    }
    statistics = RunningStatistics(specs, None, None, mask=specs["mask"])
    experience = trajectory.Trajectory(*itertools.repeat((), 7))._replace(observation=values)
    statistics.update(experience)
    found = statistics.scaled_observation(tf.nest.map_structure(tf.constant, values))
    for name in ("image", "mask", "counts"):
        np.testing.assert_array_equal(found[name], values[name])
    for name in ("vector", "number"):
        known = values[name][:, :-1].astype(np.float64)
        expected = (values[name] - known.mean((0, 1))) / known.std((0, 1))
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6)
        assert found[name].dtype == specs[name].dtype


def bandit_batch(random, size):
    """One step of a task whose two numbers, of scales 1e4 and 1e-4, both say what is right."""
    signs = random.choice([-1.0, 1.0], (size, 2))
    observation = signs * np.array([1e4, 1e-4]) * random.uniform(0.5, 1.5, (size, 2))
    right = (signs[:, 0] == signs[:, 1]).astype(np.int32)
    return observation.astype(np.float32), right


def share_right_after_training(agent, steps=200):
    random = np.random.default_rng(0)
    train = tf.function(agent.train)
    for _ in range(steps):
        observation, right = bandit_batch(random, 64)
        action = random.integers(0, 2, 64).astype(np.int32)
        reward = (action == right).astype(np.float32)
        transitions = Transitions(
            observation, action, reward, np.zeros(64, np.float32), observation
        )
        train(tf.nest.map_structure(tf.constant, to_trajectory(transitions)), tf.ones([64]))
    observation, right = bandit_batch(random, 1000)
    action = agent.policy.action(ts.restart(tf.constant(observation), 1000)).action
    return np.mean(action.numpy() == right)


def test_numbers_of_very_different_scales_are_learnt_from_by_the_line_alone():
    gin.clear_config()
    specs = (
        ts.time_step_spec(tf.TensorSpec([2], tf.float32)),
        BoundedTensorSpec([], tf.int32, 0, 1),
    )
    shares = {}
    for line in (True, False):
        agent_factory.set_seed(1)
        counter = tf.Variable(0, dtype=tf.int64, trainable=False)
        agent = normalization(n_step_dqn(*specs, train_step_counter=counter), observations=line)
        agent.initialize()
        shares[line] = share_right_after_training(agent)
    assert shares[True] > 0.98
    assert shares[False] < 0.7
