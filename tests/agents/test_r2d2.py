"""R2D2Agent: what acting saw is what learning recomputes; burn-in, masks, targets, refusals."""

import numpy as np
import pytest
import tensorflow as tf
import tree
from tf_agents.trajectories.time_step import TimeStep

from tfdrl.agents.r2d2 import R2D2Agent
from tfdrl.environments.registry import gym_environment
from tfdrl.errors import ConfigurationError
from tfdrl.experience.episode_unrolls import unroll_collector
from tfdrl.experience.unroll_batches import to_batch, train_arguments
from tfdrl.experience.unroll_queue import UnrollQueue
from tfdrl.networks.recurrent_q_networks import MlpRecurrentQNetwork
from tfdrl.runtime import agent_factory
from tfdrl.runtime.compiled import act_function
from tfdrl.types import LAST

_N, _T, _BURN_IN = 3, 6, 4


def make(environment, network=None, **settings):
    network = network or (
        lambda i, a: MlpRecurrentQNetwork(i, a, layer_units=(8,), lstm_units=7, head_units=5)
    )
    defaults = {
        "optimizer": tf.keras.optimizers.SGD(0.1),
        "burn_in_steps": _BURN_IN,
        "n_step": 3,
        "target_update_period_steps": 3,
        "gradient_clip_norm": None,
    }
    agent_factory.set_seed(1)
    return agent_factory.make_agent(
        lambda *specs, **more: R2D2Agent(
            *specs, network=network, **{**defaults, **settings}, **more
        ),
        environment,
    )


def catch(num_envs, rows=4):
    return gym_environment(num_envs, True, 1, id="tfdrl/Catch-v0", kwargs={"rows": rows})


def sequences(agent, environment, count=3, trained=_T, within_episodes=False):
    """Batches of consecutive sequences of N environments, with the values that acting saw."""
    policy, act = agent.collect_policy, act_function(agent.collect_policy)
    state = policy.get_initial_state(_N)._replace(epsilon=tf.constant([0.0, 0.3, 1.0]))
    now = environment.reset()
    burn_in = agent.burn_in_steps
    collector = unroll_collector(burn_in + trained, burn_in, within_episodes)
    collector.start(now, tree.map_structure(np.asarray, state), 0)
    found = []
    complete = None
    while len(found) < count:
        step = act(*now, state)
        info = tree.map_structure(np.asarray, step.info)
        if complete is not None:
            queue = UnrollQueue(100)
            queue.put(complete.with_next_info(info))
            found.append((queue.take(complete.rows, 0.0), queue.next_info.max_q))
        state = step.state
        action = step.action.numpy()
        now = environment.step(action)
        complete = collector.add(
            *(action, info, now, tree.map_structure(np.asarray, state)), version=0
        )
    return found


@pytest.fixture(scope="module")
def data():
    with catch(_N) as environment:
        agent = make(environment)
        return agent, sequences(agent, environment)


def arguments(agent, unrolls):
    return train_arguments(agent, to_batch(unrolls))


def test_priorities_of_acting_are_those_of_learning(data):
    """State, last action, last reward, burn-in and returns are aligned, or these would differ."""
    agent, found = data
    for unrolls, last_max_q in found:
        given = arguments(agent, unrolls)
        max_q = np.concatenate([unrolls.info.max_q, last_max_q[:, None]], axis=1)
        initial = agent.initial_priorities(unrolls.info.q_taken, max_q, given["experience"])
        learnt = agent.loss(**given).extra.priority
        np.testing.assert_allclose(initial, learnt, rtol=1e-4, atol=1e-6)
        assert np.all(initial > 0)


@pytest.mark.parametrize("within_episodes", [False, True])
@pytest.mark.parametrize(("burn_in", "trained"), [(4, 4), (5, 2), (3, 1), (0, 3), (1, 5)])
def test_the_stored_state_gives_the_values_that_acted(burn_in, trained, within_episodes):
    """Also where a sequence begins before the one before it ended its burn-in."""
    with catch(_N, rows=10 if within_episodes else 30) as environment:
        agent = make(environment, burn_in_steps=burn_in, n_step=1)
        count = 12 if within_episodes else 6
        found = sequences(agent, environment, count, trained, within_episodes)
    for unrolls, last_max_q in found:
        given = arguments(agent, unrolls)
        max_q = np.concatenate([unrolls.info.max_q, last_max_q[:, None]], axis=1)
        acted = agent.initial_priorities(unrolls.info.q_taken, max_q, given["experience"])
        np.testing.assert_allclose(acted, agent.loss(**given).extra.priority, rtol=1e-4, atol=1e-6)


def test_of_a_short_episode_only_its_steps_count():
    """Whatever the padding holds; as if the sequence had the episode's length and no burn-in."""
    with catch(_N, rows=4) as environment:  # episodes of 3 transitions
        agent, alone = (make(environment, burn_in_steps=b, n_step=2) for b in (_BURN_IN, 0))
        (unrolls, max_q), *_ = sequences(agent, environment, 2, within_episodes=True)
    given = arguments(agent, unrolls)
    weights = tf.constant([0.5, 1.0, 2.0])
    found = agent.loss(**given, weights=weights)
    assert found.loss > 0 and (unrolls.steps.step_type[0] == LAST).sum() == _BURN_IN + _T - 3 + 1
    short = unrolls._replace(
        steps=tree.map_structure(lambda leaf: leaf[:, -4:], unrolls.steps),
        action=unrolls.action[:, -3:],
        info=tree.map_structure(lambda leaf: leaf[:, -3:], unrolls.info),
    )
    wanted = alone.loss(**arguments(alone, short), weights=weights)
    tf.nest.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, wanted)
    max_q = np.concatenate([unrolls.info.max_q, max_q[:, None]], axis=1)
    initial = agent.initial_priorities(unrolls.info.q_taken, max_q, given["experience"])
    np.testing.assert_allclose(initial, found.extra.priority, rtol=1e-4)
    experience = given["experience"]
    padding = tf.range(_BURN_IN + _T + 1) < _BURN_IN + _T - 3
    noise = lambda leaf: tf.where(padding, tf.cast(1, leaf.dtype), leaf)  # noqa: E731
    other = experience._replace(
        **{name: noise(getattr(experience, name)) for name in ("reward", "discount", "action")}
    )
    again = agent.loss(**{**given, "experience": other}, weights=weights)
    tf.nest.map_structure(np.testing.assert_array_equal, found, again)


class Regularised(MlpRecurrentQNetwork):
    @property
    def losses(self):
        return [tf.reduce_sum(tf.square(self.trainable_weights[0])), tf.constant(0.25)]


def test_regularisation_of_the_network_is_in_the_loss(data):
    plain, ((unrolls, _), *_) = data
    with catch(_N) as environment:
        agent = make(environment, lambda i, a: Regularised(i, a, (8,), lstm_units=7, head_units=5))
    for to, variable in zip(agent.network.variables, plain.network.variables):
        to.assign(variable)
    agent.initialize()
    given, weight = arguments(agent, unrolls), agent.network.trainable_weights[0]
    wanted = plain.loss(**given).loss + np.square(weight).sum() + 0.25
    np.testing.assert_allclose(agent.loss(**given).loss, wanted, rtol=1e-5)


def test_zero_initial_state_sees_other_values():
    with catch(_N, rows=30) as environment:  # no episode ends in the burn-in
        agent = make(environment)
        found = sequences(agent, environment, count=2)
    given = arguments(agent, found[1][0])
    stored = agent.loss(**given).extra.priority
    agent._initial_state = "zero"
    zero = agent.loss(**given).extra.priority
    agent._initial_state = "stored"
    assert np.abs(stored - zero).max() > 1e-5


@pytest.mark.parametrize(("clip", "differ"), [({}, True), ({"last_reward_clip": 1.0}, False)])
def test_the_network_is_told_the_whole_reward_unless_it_is_clipped(clip, differ):
    """Kapturowski 2019, section 2.3: no reward clipping. Acting and learning are told the same."""
    with catch(_N, rows=30) as environment:
        agent = make(environment, burn_in_steps=0, **clip)
        ((unrolls, _),) = sequences(agent, environment, count=1, trained=2)
    given = arguments(agent, unrolls)
    q = []
    for reward in (2.0, 7.0):
        rewards = tf.concat([tf.fill([_N, 1], reward), given["experience"].reward[:, 1:]], axis=1)
        experience = given["experience"]._replace(reward=rewards)
        state = agent.collect_policy.get_initial_state(_N)
        step = TimeStep(*(leaf[:, 1] for leaf in unrolls.steps))
        step = step._replace(reward=tf.fill([_N], reward))
        acted = agent.collect_policy.action(step, state).info.max_q
        q.append((agent.loss(**{**given, "experience": experience}).extra.q, acted))
    (learnt, acted), (other_learnt, other_acted) = q
    assert np.any(acted != other_acted) == differ
    assert (learnt != other_learnt) == differ


def test_actions_follow_each_environments_epsilon(data):
    _, found = data
    info = [unrolls.info for unrolls, _ in found[1:]]
    is_greedy = np.concatenate([i.q_taken == i.max_q for i in info], axis=1)
    assert is_greedy[0].all() and not is_greedy[2].all()


def test_burn_in_is_not_trained_on(data):
    """Rewards of the burn-in enter as inputs only; its actions' values have no error."""
    agent, found = data
    given = arguments(agent, found[1][0])
    experience = given["experience"]
    early = tf.range(experience.reward.shape[1]) < _BURN_IN - 1
    changed = tf.where(early, experience.discount * 0.0, experience.discount)
    same = {**given, "experience": experience._replace(discount=changed)}
    np.testing.assert_array_equal(agent.loss(**given).loss, agent._loss(**same).loss)


def test_boundary_steps_are_masked(data):
    """What was done at a LAST step, and the reward of the reset that followed, do not matter."""
    agent, found = data
    given = arguments(agent, found[1][0])
    experience = given["experience"]
    is_last = np.asarray(experience.step_type) == LAST
    assert is_last[:, _BURN_IN:-1].any()
    zeros = tf.where(is_last, 0.5, experience.discount)
    same = {**given, "experience": experience._replace(discount=zeros)}
    np.testing.assert_allclose(agent.loss(**given).loss, agent._loss(**same).loss, rtol=1e-6)


def test_weights_and_gradients(data):
    agent, found = data
    given = arguments(agent, found[0][0])
    parts = [agent.loss(**given, weights=tf.one_hot(i, _N)).loss for i in range(_N)]
    np.testing.assert_allclose(sum(parts), agent.loss(**given).loss, rtol=1e-5)
    with tf.GradientTape() as tape:
        loss = agent.loss(**given, training=True).loss
    gradients = tape.gradient(loss, agent.network.trainable_weights)
    assert all(g is not None and np.abs(tf.convert_to_tensor(g)).max() > 0 for g in gradients)
    with tf.GradientTape() as tape:
        loss = agent.loss(**given, training=True).loss
    assert all(g is None for g in tape.gradient(loss, agent.target_network.trainable_weights))


def test_the_target_network_is_copied_on_its_period():
    with catch(_N) as environment:
        agent = make(environment)
        given = arguments(agent, sequences(agent, environment, count=1)[0][0])
    first = [variable.numpy() for variable in agent.target_network.variables]
    for step in range(1, 4):
        agent.train(**given)
        online = [variable.numpy() for variable in agent.network.variables]
        target = [variable.numpy() for variable in agent.target_network.variables]
        expected = online if step == 3 else first
        for left, right in zip(target, expected):
            np.testing.assert_array_equal(left, right)
    assert np.abs(online[0] - first[0]).max() > 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"initial_state": "old"}, "initial_state = 'old' is unknown; use one of stored, zero"),
        ({"n_step": 0}, "n_step = 0"),
        ({"burn_in_steps": -1}, "burn_in_steps = -1"),
        (
            {"network": lambda i, a: MlpRecurrentQNetwork(i, _wide(a))},
            "gives values of shape",
        ),
    ],
)
def test_refusals(settings, words):
    with catch(1) as environment, pytest.raises(ConfigurationError, match=words):
        make(environment, **settings)


def _wide(action_spec):
    from tf_agents.specs import BoundedTensorSpec

    return BoundedTensorSpec(action_spec.shape, action_spec.dtype, 0, 8)


def test_continuous_actions_are_refused():
    with gym_environment(1, True, 1, id="Pendulum-v1") as environment:
        with pytest.raises(ConfigurationError, match="one discrete action"):
            make(environment)
