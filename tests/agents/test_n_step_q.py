"""NStepQAgent on tables of Q-values: losses and gradients from the equation, targets, refusals."""

import functools

import numpy as np
import pytest
import table_networks as tables
import tensorflow as tf
from tf_agents.networks import network as tf_network
from tf_agents.networks import q_network, q_rnn_network
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory
from v_trace_equations import ACTIONS, BATCH, GAMMA, LENGTH, Unrolls

from tfdrl.agents.n_step_dqn import NStepDqnAgent
from tfdrl.agents.n_step_q import NStepQAgent
from tfdrl.errors import ConfigurationError
from tfdrl.networks.q_networks import KerasQNetwork, MlpQNetwork
from tfdrl.types import FIRST, LAST, MID

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
STATES = BATCH * (LENGTH + 1)


class TableQNetwork(tf_network.Network):
    """Q(s, .) is a row of a table. Like most Q-networks it takes one outer dimension only."""

    def __init__(self, observation_spec, action_spec, states, name="TableQNetwork"):
        super().__init__(observation_spec, state_spec=(), name=name)
        self.table = tf.Variable(tf.zeros([states, int(action_spec.maximum) + 1]))

    def call(self, observation, step_type=None, network_state=(), training=False):
        assert observation.shape.rank == 1 and step_type.shape.rank == 1
        return tf.gather(self.table, observation), network_state


def make_agent(observation_spec, action_spec, network, agent=NStepQAgent, **settings):
    """An agent that takes plain gradient steps of rate 1, without clipping."""
    defaults = {
        "optimizer": tf.keras.optimizers.SGD(1.0),
        "gradient_clip_norm": None,
        "train_step_counter": tf.Variable(0, dtype=tf.int64),
    }
    specs = (ts.time_step_spec(observation_spec), action_spec)
    return agent(*specs, network=network, **{**defaults, **settings})


def table_agent(q, q_target, **settings):
    """The online table q and the target's, [S, A] each."""
    states, actions = np.shape(q)
    network = functools.partial(TableQNetwork, states=states)
    agent = make_agent(tables.numbers(states), tables.discrete(actions), network, **settings)
    agent.initialize()
    agent.network.table.assign(q)
    agent.target_network.table.assign(q_target)
    return agent


def random_tables(seed=3):
    """q and q_target, [B, T+1, A] each."""
    return np.random.default_rng(seed).normal(size=(2, BATCH, LENGTH + 1, ACTIONS)) * 2.0


def agent_of(q, q_target, **settings):
    flat = (table.reshape(-1, ACTIONS) for table in (q, q_target))
    return table_agent(*flat, **{"gamma": GAMMA, **settings})


def gradient_of(agent, experience, **kwargs):
    """The loss, and its gradient by the online table, as `train` computes them."""
    with tf.GradientTape() as tape:
        info = agent.loss(experience, training=True, **kwargs)
    return info, tf.convert_to_tensor(tape.gradient(info.loss, agent.network.table)).numpy()


def td_errors(u, q, q_target, n, double=False, sarsa=False):
    """delta_t = sum_k gamma^k r_{t+k} + gamma^m max_a Q(s_{t+m}, a) - Q(s_t, a_t), [B, T].

    m is n, or less where the unroll or the episode ends before; 0 for steps that are LAST. Of
    Sarsa, whose unroll ends one transition earlier, Q(s_{t+m}, a_{t+m}) for the maximum.
    """
    errors, length = np.zeros((BATCH, LENGTH)), LENGTH - sarsa
    selector = q if double else q_target
    for b, s in np.ndindex(BATCH, length):
        if u.step_type[b, s] == LAST:
            continue
        errors[b, s], product = -q[b, s, u.action[b, s]], 1.0
        for t in range(s, length):
            errors[b, s] += product * u.reward[b, t]
            product *= GAMMA * u.discount[b, t]
            if t + 1 == length or t + 1 == s + n or u.step_type[b, t + 1] == LAST:
                action = u.action[b, t + 1] if sarsa else selector[b, t + 1].argmax()
                errors[b, s] += product * q_target[b, t + 1, action]
                break
    return errors


@pytest.mark.parametrize("double", [False, True], ids=["plain", "double"])
@pytest.mark.parametrize("n_step", [None, 1, 3, 100])
@pytest.mark.parametrize(
    ("loss", "reduction"), [("half_squared", "sum"), ("half_squared", "mean"), ("huber", "sum")]
)
def test_loss_and_gradient_from_the_equation(loss, reduction, n_step, double):
    """Episodes that terminate, that are truncated, and that begin within an unroll."""
    u, (q, q_target) = Unrolls(is_discrete=True), random_tables()
    agent = agent_of(q, q_target, n_step=n_step, double=double, loss=loss, reduction=reduction)
    info, gradient = gradient_of(agent, u.experience())
    errors = td_errors(u, q, q_target, n_step or LENGTH, double)
    scale = 1.0 if reduction == "sum" else 1.0 / (BATCH * LENGTH)
    size = np.abs(errors)
    losses = 0.5 * errors**2
    if loss == "huber":
        losses = np.where(size <= 1.0, losses, size - 0.5)
        assert (size < 1).any() and (size > 1).any()
    np.testing.assert_allclose(info.loss, scale * losses.sum(), **TOLERANCE)
    wanted = np.zeros_like(q)  # only of Q(s, a) of steps that are not LAST
    of_error = np.clip(errors, -1, 1) if loss == "huber" else errors
    np.put_along_axis(wanted[:, :-1], u.action[..., None], -scale * of_error[..., None], axis=-1)
    np.testing.assert_allclose(gradient.reshape(q.shape), wanted, **TOLERANCE)
    mask = u.step_type[:, :-1] != LAST
    np.testing.assert_allclose(info.extra.td_error, size.sum() / mask.sum(), **TOLERANCE)
    taken = np.take_along_axis(q[:, :-1], u.action[..., None], -1)[..., 0]
    np.testing.assert_allclose(info.extra.q, taken[mask].mean(), **TOLERANCE)


@pytest.mark.parametrize("n_step", [None, 1, 3])
def test_sarsa_from_the_equation(n_step):
    """Of T transitions T-1 are learnt from; the action at a LAST step is one that was chosen."""
    u, (q, q_target) = Unrolls(is_discrete=True), random_tables()
    agent = agent_of(q, q_target, algorithm="sarsa", n_step=n_step)
    info, gradient = gradient_of(agent, u.experience())
    errors = td_errors(u, q, q_target, n_step or LENGTH, sarsa=True)
    assert (errors[:, -1] == 0).all() and (errors[:, :-1] != 0).any(axis=0).all()
    np.testing.assert_allclose(info.loss, 0.5 * (errors**2).sum(), **TOLERANCE)
    wanted = np.zeros_like(q)
    np.put_along_axis(wanted[:, :-1], u.action[..., None], -errors[..., None], axis=-1)
    np.testing.assert_allclose(gradient.reshape(q.shape), wanted, **TOLERANCE)


def test_one_step_sarsa_bootstraps_from_the_action_that_was_taken():
    """Whatever is best; by the target network; nothing after a termination, of a truncation the
    value of the action that was chosen at its last step."""
    step_type, discount = [FIRST, MID, LAST, FIRST, LAST, FIRST], [1.0, 0.0, 1.0, 1.0, 1.0]
    experience = script(step_type, [1.0, 2.0, 99.0, 4.0, 99.0], discount, [0, 1, 1, 0, 1, 0])
    q_target = [[9.0, 9.0], [8.0, 6.0], [7.0, 7.0], [9.0, 9.0], [16.0, 12.0], [9.0, 9.0]]
    agent = table_agent(np.zeros((6, 2)), q_target, gamma=0.5, algorithm="sarsa", n_step=1)
    found = -gradient_of(agent, experience)[1]
    wanted = [[1 + 0.5 * 6, 0], [0, 2], [0, 0], [4 + 0.5 * 12, 0], [0, 0], [0, 0]]
    np.testing.assert_allclose(found, wanted)


def test_sarsa_needs_the_action_that_follows():
    agent = table_agent(np.zeros((2, 2)), np.zeros((2, 2)), algorithm="sarsa")
    with pytest.raises(ConfigurationError, match="unrolls of 2 transitions or more"):
        agent.loss(script([MID, MID], [2.0], [1.0]))
    assert agent.lookahead_steps == 1 and mlp_agent().lookahead_steps == 0


def script(step_type, reward, discount, action=0):
    """Trajectory [1, T+1] of states 0, 1, 2, ..., in which these actions are taken."""
    size = len(step_type)
    step_type, action = tf.constant([step_type]), tf.constant(action, tf.int32)
    return trajectory.Trajectory(
        *(step_type, tf.range(size)[None], tf.broadcast_to(action, [1, size]), (), step_type),
        *(tf.constant([[*reward, 0.0]]), tf.constant([[*discount, 1.0]])),
    )


def errors_of(experience, q, q_target, **settings):
    """delta_t as the gradient shows it, of the action 0."""
    agent = table_agent(q, q_target, gamma=0.5, **settings)
    return -gradient_of(agent, experience)[1][:, 0]


@pytest.mark.parametrize(
    ("n_step", "y"),
    [
        (1, [1 + 0.5 * 8, 2 + 0.5 * 16, 4 + 0.5 * 32]),
        (2, [1 + 0.5 * 2 + 0.25 * 16, 2 + 0.5 * 4 + 0.25 * 32, 4 + 0.5 * 32]),
        (None, [1 + 0.5 * 2 + 0.25 * 4 + 0.125 * 32, 2 + 0.5 * 4 + 0.25 * 32, 4 + 0.5 * 32]),
    ],
)
def test_one_step_and_n_step_returns(n_step, y):
    """Rewards 1, 2, 4; max_a Q = 8, 16, 32 of states 1, 2, 3 in the target; gamma = 1/2."""
    experience = script([FIRST, MID, MID, MID], [1.0, 2.0, 4.0], [1.0, 1.0, 1.0])
    q_target = [[99.0, 99.0], [8.0, 3.0], [5.0, 16.0], [32.0, 31.0]]
    found = errors_of(experience, np.zeros((4, 2)), q_target, n_step=n_step)
    np.testing.assert_allclose(found, [*y, 0.0], rtol=1e-6)


@pytest.mark.parametrize("n_step", [None, 1])
@pytest.mark.parametrize(("discount", "y_0"), [(1.0, 1 + 0.5 * 8), (0.0, 1.0)])
def test_an_end_within_the_unroll(discount, y_0, n_step):
    """first -> last | first -> mid: a truncation bootstraps from the last observation, a
    termination from nothing, and neither from the next episode."""
    experience = script([FIRST, LAST, FIRST, MID], [1.0, 100.0, 2.0], [discount, 1.0, 1.0])
    q_target = [[0.0, 0.0], [8.0, 3.0], [40.0, 50.0], [16.0, 1.0]]
    found = errors_of(experience, np.zeros((4, 2)), q_target, n_step=n_step)
    np.testing.assert_allclose(found, [y_0, 0.0, 2 + 0.5 * 16, 0.0], rtol=1e-6)


@pytest.mark.parametrize(("double", "bootstrap"), [(False, 8.0), (True, 3.0)])
def test_the_target_network_gives_the_value(double, bootstrap):
    """The online network, which prefers action 1, only selects, and only if it is asked to."""
    q, q_target = [[1.0, 0.0], [6.0, 7.0]], [[50.0, 60.0], [8.0, 3.0]]
    found = errors_of(script([MID, MID], [2.0], [1.0]), q, q_target, double=double)
    np.testing.assert_allclose(found, [2 + 0.5 * bootstrap - 1, 0.0])


@pytest.mark.parametrize("double", [False, True])
def test_gradient_flows_through_the_value_of_the_action_alone(double):
    u, (q, q_target) = Unrolls(is_discrete=True), random_tables()
    agent, experience = agent_of(q, q_target, double=double), u.experience()
    others = [experience.reward, experience.discount]
    with tf.GradientTape() as tape:
        tape.watch(others)
        loss = agent.loss(experience, training=True).loss
    assert tape.gradient(loss, [*others, agent.target_network.table]) == [None] * 3


def test_what_followed_a_last_step_and_index_T_do_not_matter():
    u, other, tables_of_q = Unrolls(True), Unrolls(True), random_tables()
    was_last = u.step_type[:, :-1] == LAST
    assert was_last.sum() == 9
    other.action[was_last] = (other.action[was_last] + 1) % ACTIONS
    other.reward[was_last], other.discount[was_last] = np.nan, 7.0
    agent = agent_of(*tables_of_q)
    before, after = (gradient_of(agent, e) for e in (u.experience(), other.experience(2.0)))
    tf.nest.map_structure(np.testing.assert_array_equal, before, after)
    assert np.isfinite(before[0].loss)


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_weights_are_of_unrolls(reduction):
    u, agent = Unrolls(is_discrete=True), agent_of(*random_tables(), reduction=reduction)
    of = lambda w: agent.loss(u.experience(), weights=tf.constant(w, tf.float32)).loss  # noqa: E731
    parts = np.array([of(row) for row in np.eye(BATCH)])
    weights = np.random.default_rng(1).random(BATCH)
    np.testing.assert_allclose(of(weights), parts @ weights, rtol=1e-5)
    np.testing.assert_allclose(agent.loss(u.experience()).loss, parts.sum(), rtol=1e-5)


@pytest.mark.parametrize("share", [None, 0.5])
def test_a_training_step_is_the_gradient_step(share):
    """Clipped by the global norm, if at all."""
    u, agent = Unrolls(is_discrete=True), agent_of(*random_tables())
    before, target = agent.network.table.numpy(), agent.target_network.table.numpy()
    info, gradient = gradient_of(agent, u.experience())
    norm = np.sqrt((gradient**2).sum())
    agent._gradient_clip_norm = share and share * norm
    trained = agent.train(u.experience())
    np.testing.assert_allclose(trained.loss, info.loss, rtol=1e-6)
    np.testing.assert_allclose(trained.extra.gradient_norm, norm, rtol=1e-5)
    after = agent.network.table.numpy()
    np.testing.assert_allclose(after, before - (share or 1.0) * gradient, **TOLERANCE)
    np.testing.assert_array_equal(agent.target_network.table, target)
    assert agent.train_step_counter.numpy() == 1


def test_without_an_optimizer_there_is_a_loss_but_no_training():
    u, agent = Unrolls(is_discrete=True), agent_of(*random_tables(), optimizer=None)
    with_one = agent_of(*random_tables())
    wanted = with_one.train(u.experience()).loss
    np.testing.assert_allclose(agent.loss(u.experience(), training=True).loss, wanted, rtol=1e-6)
    with pytest.raises(ConfigurationError, match=r"NStepQAgent\.optimizer = None"):
        agent.train(u.experience())
    assert agent.train_step_counter.numpy() == 0


def mlp_agent(**settings):
    spec, network = tf.TensorSpec([4], tf.float32), functools.partial(MlpQNetwork, layer_units=(5,))
    return make_agent(spec, tables.discrete(ACTIONS), network, **settings)


def test_initialize_copies_the_online_network_to_the_target():
    agent = mlp_agent()
    pairs = list(zip(agent.network.variables, agent.target_network.variables))
    assert len(pairs) == 4 and any(np.any(left != right) for left, right in pairs)
    agent.initialize()
    for left, right in pairs:
        np.testing.assert_array_equal(left, right)
    agent.network.variables[0].assign_add(tf.ones([4, 5]))  # a copy, not the same variables
    np.testing.assert_allclose(pairs[0][0] - pairs[0][1], 1.0, rtol=1e-5)


@pytest.mark.parametrize(("period", "copies_at"), [(None, []), (1, [1, 2, 3, 4]), (2, [2, 4])])
def test_the_target_is_copied_every_so_many_steps(period, copies_at):
    u, q = Unrolls(is_discrete=True), random_tables()[0]
    agent = agent_of(
        q, q, target_update_period_steps=period, optimizer=tf.keras.optimizers.SGD(0.1)
    )
    found = []
    for step in range(1, 5):
        agent.train(u.experience())
        if np.array_equal(agent.network.table, agent.target_network.table):
            found.append(step)
    assert found == copies_at


def test_policies():
    """Greedy, the collecting one, and an actor's own; action 2 is the best in every state."""
    q = np.tile([0.0, 1.0, 2.0], (STATES, 1))
    agent = table_agent(q, q)
    steps = ts.TimeStep(
        tf.fill([900], MID), tf.zeros([900]), tf.ones([900]), tf.range(900) % STATES
    )
    actions = lambda policy: policy.action(steps).action.numpy()  # noqa: E731
    assert np.all(actions(agent.policy) == 2)
    share = np.mean(actions(agent.collect_policy) == 2)
    assert share == pytest.approx(0.9 + 0.1 / 3, abs=0.04)
    actor = agent.actor_policy(np.ones(900), seed=3)
    counts = np.bincount(actions(actor), minlength=3)
    np.testing.assert_allclose(counts, 300, atol=80)
    assert not np.array_equal(
        actions(agent.actor_policy(1.0, 3)), actions(agent.actor_policy(1.0, 4))
    )
    np.testing.assert_array_equal(actor.action(steps).info.max_q, 2.0)


JOIN = tf.keras.layers.Lambda(lambda leaves: tf.concat(tf.nest.flatten(leaves), axis=-1))


@pytest.mark.parametrize(
    "network",
    [
        MlpQNetwork,
        functools.partial(MlpQNetwork, dueling=True),
        lambda s, a: q_network.QNetwork(s, a, preprocessing_combiner=JOIN, fc_layer_params=(4,)),
    ],
    ids=["mlp", "dueling", "tf_agents"],
)
def test_time_is_folded_into_the_batch(network):
    """Of nested observations too: the values of a step are those that acting sees."""
    spec = {"a": tf.TensorSpec([4], tf.float32), "b": tf.TensorSpec([2], tf.float32)}
    agent = make_agent(spec, tables.discrete(ACTIONS), network, gamma=0.0, n_step=1)
    random, u = np.random.default_rng(0), Unrolls(is_discrete=True)
    observation = {
        key: tf.constant(random.normal(size=(BATCH, LENGTH + 1, leaf.shape[0])), tf.float32)
        for key, leaf in spec.items()
    }
    found = agent.loss(u.experience()._replace(observation=observation, policy_info=()))
    q = [agent.network({k: v[:, t] for k, v in observation.items()})[0] for t in range(LENGTH)]
    taken = np.take_along_axis(np.stack(q, axis=1), u.action[..., None], -1)[..., 0]
    mask = u.step_type[:, :-1] != LAST
    np.testing.assert_allclose(found.extra.q, taken[mask].mean(), rtol=1e-4)
    np.testing.assert_allclose(found.loss, 0.5 * ((u.reward - taken)[mask] ** 2).sum(), rtol=1e-5)


SHARED = tf.keras.Sequential([tf.keras.layers.Dense(2)])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "l1"}, r"NStepQAgent\.loss = 'l1' is unknown; use one of half_squared, huber"),
        ({"reduction": "max"}, r"NStepQAgent\.reduction = 'max' is unknown; use one of sum, mean"),
        ({"algorithm": "td"}, r"algorithm = 'td' is unknown; use one of q_learning, sarsa"),
        ({"algorithm": "sarsa", "double": True}, r"double = True with algorithm = 'sarsa'"),
        ({"n_step": 0}, r"NStepQAgent\.n_step = 0 must be at least 1, or None"),
        (
            {"target_update_period_steps": 0},
            r"NStepQAgent\.target_update_period_steps = 0 must be at least 1, or None",
        ),
        (
            {"network": lambda s, _: MlpQNetwork(s, tables.discrete(3))},
            r"values of shape \[2, 3\] for 2 steps; \[2, 2\]",
        ),
        (
            {"network": lambda s, a: q_rnn_network.QRnnNetwork(s, a, lstm_size=(3,))},
            r"NStepQAgent\.network = QRnnNetwork is recurrent",
        ),
        (
            {"network": lambda s, a: KerasQNetwork(s, a, model=lambda *_: SHARED)},
            "the two networks KerasQNetwork share variables",
        ),
    ],
)
def test_what_cannot_work_is_refused(settings, message):
    settings = {"network": MlpQNetwork, **settings}
    with pytest.raises(ConfigurationError, match=message):
        make_agent(tf.TensorSpec([4], tf.float32), tables.discrete(2), **settings)


def test_only_one_discrete_action():
    with pytest.raises(ConfigurationError, match="one discrete action"):
        make_agent(tf.TensorSpec([4], tf.float32), tables.continuous(2), MlpQNetwork)


@pytest.mark.parametrize("kind", [NStepQAgent, NStepDqnAgent])
@pytest.mark.parametrize("norm", [None, 10.0])
def test_what_an_architecture_reads(kind, norm):
    agent = mlp_agent(agent=kind, gamma=0.9, gradient_clip_norm=norm)
    assert (agent.gamma, agent.gradient_clip_norm) == (0.9, norm)
