"""NStepDpgAgent: TD errors, both gradients by finite differences, noise, targets, refusals."""

import numpy as np
import preloaded
import pytest
import tensorflow as tf
from tf_agents.specs import BoundedTensorSpec
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from tfdrl.agents.n_step_dpg import NStepDpgAgent
from tfdrl.agents.noisy_policy import NoisyPolicy
from tfdrl.errors import ConfigurationError
from tfdrl.learning.trainer import Trainer
from tfdrl.networks.continuous_networks import mlp_actor, mlp_critic

GAMMA = 0.9
STATES, ACTIONS = 3, 2
ACTION_SPEC = BoundedTensorSpec([ACTIONS], tf.float32, [-2.0, 0.0], [2.0, 4.0])


def actor(observation_spec, action_spec):
    return mlp_actor(observation_spec, action_spec, (5,))


def critic(observation_spec, action_spec):
    return mlp_critic(observation_spec, action_spec, (6,), (5,))


def make_agent(action_spec=ACTION_SPEC, **kwargs):
    tf.keras.utils.set_random_seed(3)
    settings = {
        "actor_network": actor,
        "critic_network": critic,
        "actor_optimizer": tf.keras.optimizers.SGD(1.0),
        "critic_optimizer": tf.keras.optimizers.SGD(1.0),
        "gamma": GAMMA,
        "action_gradient_clip": None,
        "train_step_counter": tf.Variable(0, dtype=tf.int64),
    }
    agent = NStepDpgAgent(
        ts.time_step_spec(tf.TensorSpec([STATES], tf.float32)),
        action_spec,
        **{**settings, **kwargs},
    )
    agent.initialize()
    for network in networks(agent):  # the heads begin near zero, the targets as copies
        for variable in network.variables:
            variable.assign(np.random.default_rng(variable.shape[0]).normal(size=variable.shape))
            variable.assign_add(tf.random.normal(variable.shape))
    return agent


def networks(agent):
    return [agent.actor, agent.critic, agent.target_actor, agent.target_critic]


def batch(size=4, step_type=ts.StepType.MID):
    random = np.random.default_rng(1)
    pair = lambda x: np.stack([x, x], axis=1).astype(np.float32)  # noqa: E731
    step = np.full([size, 2], ts.StepType.MID, np.int32)
    step[0, 0] = step_type
    discount = np.array([GAMMA, 1.0, 0.0, GAMMA**2], np.float32)[:size]
    return tf.nest.map_structure(
        tf.constant,
        trajectory.Trajectory(
            step_type=step,
            observation=random.normal(size=(size, 2, STATES)).astype(np.float32),
            action=pair(random.uniform(0, 2, size=(size, ACTIONS))),
            policy_info=(),
            next_step_type=np.full([size, 2], ts.StepType.MID, np.int32),
            reward=pair(random.normal(size=size)),
            discount=pair(discount),
        ),
    )


def expected_errors(agent, experience):
    """delta = R + gamma^m q(s', pi(s'; phi-); psi-) - q(s, a; psi), one at a time."""
    errors = []
    for i in range(len(experience.reward)):
        now, then = experience.observation[i : i + 1, 0], experience.observation[i : i + 1, 1]
        best = agent.target_actor(then)[0]
        bootstrap = agent.target_critic((then, best))[0].numpy().item()
        q = agent.critic((now, experience.action[i : i + 1, 0]))[0].numpy().item()
        reward, discount = (leaf[i, 0].numpy() for leaf in (experience.reward, experience.discount))
        errors.append(reward + GAMMA * discount * bootstrap - q)
    return np.array(errors)


def test_td_errors_are_before_weighting():
    agent, experience = make_agent(), batch()
    for weights in (None, tf.constant([1.0, 2.0, 0.5, 3.0])):
        info = agent.loss(experience, weights=weights)
        errors = expected_errors(agent, experience)
        np.testing.assert_allclose(info.extra.td_error, errors, rtol=1e-4, atol=1e-5)
        w = 1.0 if weights is None else weights.numpy()
        np.testing.assert_allclose(info.extra.critic_loss, np.mean(w * errors**2 / 2), rtol=1e-4)


def test_a_step_from_last_to_first_is_no_transition():
    agent = make_agent()
    info = agent.loss(batch(step_type=ts.StepType.LAST))
    assert info.extra.td_error[0] == 0.0 and np.all(info.extra.td_error[1:] != 0.0)


@pytest.mark.parametrize("clip", [None, 0.05])
def test_both_gradients_are_the_numerical_ones(clip):
    """SGD with rate 1 steps by minus the gradient of the weighted critic loss and of -mean q."""
    agent, experience = make_agent(action_gradient_clip=clip), batch()
    weights = tf.constant([1.0, 0.2, 0.5, 0.8])
    now = experience.observation[:, 0]
    before = [[v.numpy() for v in network.variables] for network in networks(agent)]

    def critic_loss():
        return float(agent.loss(experience, weights=weights).extra.critic_loss)

    def policy_objective():
        action = agent.actor(now)[0]
        if clip is None:
            return -float(tf.reduce_mean(agent.critic((now, action))[0]))
        return -float(tf.reduce_mean(tf.reduce_sum(action * slope, axis=1)))

    with tf.GradientTape() as tape:
        action = agent.actor(now)[0]
        tape.watch(action)
        q = agent.critic((now, action))[0]
    if clip is not None:
        slope = tf.clip_by_value(tape.gradient(q, action), -clip, clip)
        assert np.any(np.abs(slope) == np.float32(clip))
    expected = [
        [_numerical(function, variable) for variable in network.trainable_weights]
        for network, function in ((agent.critic, critic_loss), (agent.actor, policy_objective))
    ]
    agent.train(experience, weights=weights)
    for network, gradients, old in (
        (agent.critic, expected[0], before[1]),
        (agent.actor, expected[1], before[0]),
    ):
        for variable, gradient, value in zip(network.trainable_weights, gradients, old):
            np.testing.assert_allclose(value - variable.numpy(), gradient, rtol=0.05, atol=3e-3)
    for network, old in zip(networks(agent)[2:], before[2:]):
        for variable, value in zip(network.variables, old):
            np.testing.assert_array_equal(variable, value)


def _numerical(function, variable, step=1e-2):
    gradient, value = np.zeros(variable.shape, np.float64), variable.numpy()
    for index in np.ndindex(*value.shape):
        results = []
        for sign in (1, -1):
            moved = value.copy()
            moved[index] += sign * step
            variable.assign(moved)
            results.append(function())
        gradient[index] = (results[0] - results[1]) / (2 * step)
    variable.assign(value)
    return gradient


def test_targets_are_hard_copies_every_period():
    agent, experience = make_agent(target_update_period_steps=3), batch()

    def is_copy():
        actor, critic, target_actor, target_critic = networks(agent)
        pairs = zip(
            actor.variables + critic.variables, target_actor.variables + target_critic.variables
        )
        return all(np.array_equal(online, target) for online, target in pairs)

    found = []
    for _ in range(6):
        agent.train(experience)
        found.append(is_copy())
    assert found == [False, False, True, False, False, True]


def results_of(strategy):
    with strategy.scope():
        agent = make_agent(gradient_clip_norm=0.05)  # clipped after the sum
    trainer = Trainer(agent, strategy, max_bad_steps=1)
    experience = tf.nest.map_structure(lambda leaf: leaf[None], batch())
    weights = tf.constant([[1.0, 0.2, 0.5, 0.8]])
    found = [trainer.train(experience, weights) for _ in range(2)]
    variables = [v.numpy() for network in networks(agent) for v in network.variables]
    return [*found[0], *found[1], *trainer.scalars.values(), *variables]


def compare_strategies():
    """Run by the test below in a process where two logical devices can still be made."""
    from tfdrl.learning.devices import strategy

    mirrored = strategy(kind="mirrored", devices=("CPU:0", "CPU:1"))
    assert mirrored.num_replicas_in_sync == 2
    left, right = results_of(mirrored), results_of(tf.distribute.get_strategy())
    for a, b in zip(left, right):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    print("strategies agree")


def test_two_replicas_learn_what_one_does():
    output = preloaded.call("test_n_step_dpg:compare_strategies", __file__)
    assert "strategies agree" in output, output[-3000:]


def test_a_step_that_is_not_finite_changes_nothing_and_says_nan():
    agent, experience = make_agent(), batch()
    broken = experience._replace(reward=tf.fill(experience.reward.shape, np.nan))
    before = [v.numpy() for network in networks(agent) for v in network.variables]
    assert np.isnan(agent.train(broken).loss)
    for variable, value in zip((v for n in networks(agent) for v in n.variables), before):
        np.testing.assert_array_equal(variable, value)


def time_steps(count, step_type=ts.StepType.MID):
    random = np.random.default_rng(0)
    return ts.TimeStep(
        tf.fill([count], step_type),
        tf.zeros([count]),
        tf.ones([count]),
        tf.constant(random.normal(size=(count, STATES)), tf.float32),
    )


def test_noise_has_the_environments_deviation_in_half_ranges_and_stays_in_bounds():
    agent, count = make_agent(), 4000
    for variable in agent.actor.variables:
        variable.assign(tf.zeros_like(variable))  # acts in the middle of the range
    stds = np.repeat([0.0, 0.1, 0.2, 2.0], count // 4)
    policy = agent.actor_policy(stds, seed=1)
    step = policy.action(time_steps(count), policy.get_initial_state(count))
    action = step.action.numpy().reshape(4, -1, ACTIONS)
    np.testing.assert_array_equal(action[0], np.broadcast_to([0.0, 2.0], action[0].shape))
    np.testing.assert_allclose(action[1].std(axis=0), [0.2, 0.2], rtol=0.1)
    np.testing.assert_allclose(action[2].std(axis=0), [0.4, 0.4], rtol=0.1)
    np.testing.assert_allclose(action[2].mean(axis=0), [0.0, 2.0], atol=0.05)
    assert (step.action >= ACTION_SPEC.minimum).numpy().all()
    assert (step.action <= ACTION_SPEC.maximum).numpy().all()
    assert (action[3] == [-2.0, 0.0]).any() and (action[3] == [2.0, 4.0]).any()


def test_policy_reports_the_values_for_initial_priorities():
    agent, now = make_agent(), time_steps(5)
    policy = agent.actor_policy(np.full(5, 0.5), seed=1)
    step = policy.action(now, policy.get_initial_state(5))
    greedy = agent.actor(now.observation)[0]
    assert np.all(np.abs(step.action - greedy) > 0)
    taken = agent.critic((now.observation, step.action))[0]
    np.testing.assert_allclose(step.info.q_taken, taken, rtol=1e-5)
    np.testing.assert_allclose(
        step.info.max_q, agent.critic((now.observation, greedy))[0], rtol=1e-5
    )
    np.testing.assert_allclose(agent.policy.action(now).action, greedy, rtol=1e-5)


def test_ornstein_uhlenbeck_noise_is_correlated_and_begins_anew_with_the_episode():
    agent, count, steps = make_agent(noise="ornstein_uhlenbeck", noise_damping=0.15), 500, 60
    for variable in agent.actor.variables:
        variable.assign(tf.zeros_like(variable))
    policy = agent.actor_policy(0.05, seed=2)
    act = tf.function(policy.action)
    state = policy.get_initial_state(count)
    step = act(time_steps(count, ts.StepType.FIRST), tf.ones_like(state))
    np.testing.assert_array_equal(step.state, 0.0)
    noises = []
    for _ in range(steps):
        step = act(time_steps(count), step.state)
        noises.append(step.state.numpy())
    noises = np.array(noises)[steps // 2 :]
    stationary = 0.05 / np.sqrt(1 - 0.85**2)
    np.testing.assert_allclose(noises.std(), stationary, rtol=0.1)
    correlation = np.mean(noises[1:] * noises[:-1]) / np.mean(noises**2)
    np.testing.assert_allclose(correlation, 0.85, atol=0.03)
    np.testing.assert_allclose(step.action, [0.0, 2.0] + 2.0 * step.state, atol=1e-5)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (BoundedTensorSpec([], tf.int32, 0, 3), "continuous action.*int32.*NStepDqnAgent"),
        (tf.TensorSpec([2], tf.float32), r"action with bounds.*shape \[2\].*RescaleAction"),
        (
            BoundedTensorSpec([2], tf.float32, -np.inf, np.inf),
            r"action with bounds.*shape \[2\].*RescaleAction",
        ),
        ((ACTION_SPEC, ACTION_SPEC), "one action, but the environment has 2"),
    ],
)
def test_actions_that_cannot_be_trained_are_refused(spec, message):
    with pytest.raises(ConfigurationError, match=message):
        make_agent(action_spec=spec)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"noise": "pink"}, "noise = 'pink' is unknown; use one of gaussian, ornstein_uhlenbeck"),
        ({"noise_damping": 0.0}, "noise_damping = 0.0 must be above 0"),
        ({"action_gradient_clip": 0.0}, "action_gradient_clip = 0.0 must be above 0, or None"),
        ({"target_update_period_steps": 0}, "target_update_period_steps = 0 must be 1 or more"),
        ({"critic_network": actor}, "critic_network does not fit"),
        (
            {"actor_network": lambda o, a: mlp_actor(o, BoundedTensorSpec([3], tf.float32, -1, 1))},
            r"actor_network gives outputs of shape \[\[2, 3\]\] for 2 inputs; \[2, 2\] is needed",
        ),
    ],
)
def test_settings_that_cannot_work_are_refused(kwargs, message):
    with pytest.raises(ConfigurationError, match=message):
        make_agent(**kwargs)


def test_one_optimizer_for_both_is_refused():
    optimizer = tf.keras.optimizers.SGD(1.0)
    with pytest.raises(ConfigurationError, match="each needs its own"):
        make_agent(actor_optimizer=optimizer, critic_optimizer=optimizer)


def test_actors_pull_what_they_act_and_judge_by():
    agent = make_agent()
    policy = agent.actor_policy(0.3, seed=1)
    assert isinstance(policy, NoisyPolicy)
    assert [v.ref() for v in policy.variables()] == [
        v.ref() for v in agent.collect_policy.variables()
    ]
    assert len(policy.variables()) == len(agent.actor.variables) + len(agent.critic.variables)
