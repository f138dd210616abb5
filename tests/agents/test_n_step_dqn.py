"""NStepDqnAgent on a table of Q-values: losses, gradients, blocked gradients, target copies."""

import numpy as np
import oracles
import pytest
import tensorflow as tf
from tf_agents.networks import q_network
from tf_agents.specs import BoundedTensorSpec
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from tfdrl.agents.n_step_dqn import NStepDqnAgent
from tfdrl.errors import ConfigurationError
from tfdrl.networks.q_networks import KerasQNetwork, MlpQNetwork

GAMMA = 0.99


def oracle(case, group="double_q"):
    """name -> array of a case of the test vectors."""
    return oracles.load(group, case)


def bounded(actions, dtype=tf.int32, shape=()):
    return BoundedTensorSpec(shape, dtype, 0, actions - 1)


def table(observation_spec, action_spec):
    """Q(s, .) is a row of one matrix, s being one-hot."""

    def linear(spec, actions):
        layer = tf.keras.layers.Dense(actions, use_bias=False, kernel_initializer="zeros")
        return tf.keras.Sequential([tf.keras.Input(spec.shape), layer])

    return KerasQNetwork(observation_spec, action_spec, model=linear)


def make_agent(states, actions, network=table, **kwargs):
    settings = {
        "optimizer": tf.keras.optimizers.SGD(1.0),
        "gamma": GAMMA,
        "loss": "huber",
        "gradient_clip_norm": None,
        "train_step_counter": tf.Variable(0, dtype=tf.int64),
    }
    agent = NStepDqnAgent(
        ts.time_step_spec(tf.TensorSpec([states], tf.float32)),
        bounded(actions),
        network=network,
        **{**settings, **kwargs},
    )
    agent.initialize()
    return agent


def weights_of(network):
    return [variable.numpy() for variable in network.variables]


def experience(states, s_t, a_t, n_step_return, discount, s_tpm, step_type=ts.StepType.MID):
    """Trajectory [B, 2] as the replay makes it; states are indices."""
    eye, size = np.eye(states, dtype=np.float32), len(s_t)
    twice = lambda x, dtype: np.stack([x, x], axis=1).astype(dtype)  # noqa: E731
    step = np.full([size, 2], step_type, np.int32)
    return tf.nest.map_structure(
        tf.constant,
        trajectory.Trajectory(
            step_type=step,
            observation=np.stack([eye[s_t], eye[s_tpm]], axis=1),
            action=twice(a_t, np.int32),
            policy_info=(),
            next_step_type=np.full([size, 2], ts.StepType.MID, np.int32),
            reward=twice(n_step_return, np.float32),
            discount=twice(discount, np.float32),
        ),
    )


def oracle_agent(v, **kwargs):
    """s_i is state i and s'_i state B + i; rows that must not matter hold large numbers."""
    size, actions = v["q_tm1"].shape
    agent = make_agent(2 * size, actions, **kwargs)
    agent.q_network.variables[0].assign(np.concatenate([v["q_tm1"], v["q_online_t"]]))
    unused = np.full_like(v["q_tm1"], 1e3)
    agent.target_q_network.variables[0].assign(np.concatenate([unused, v["q_target_t"]]))
    indices = np.arange(size)
    batch = experience(
        *(2 * size, indices, v["a_tm1"].astype(int), v["n_step_return"]),
        *(v["bootstrap_discount"] / GAMMA, size + indices),
    )
    return agent, batch, tf.constant(v["is_weights"], tf.float32)


@pytest.mark.parametrize("case", ["0", "1", "2"])
@pytest.mark.parametrize(
    ("loss", "expected"), [("huber", "weighted_huber_mean"), ("half_squared", "weighted_l2_mean")]
)
def test_weighted_loss(case, loss, expected):
    v = oracle(case)
    agent, batch, weights = oracle_agent(v, loss=loss)
    info = agent.loss(batch, weights=weights)
    np.testing.assert_allclose(info.loss, v[expected], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("double", "expected"), [(True, "td_error"), (False, "dqn_td_error")])
def test_td_error_is_before_weighting(double, expected):
    v = oracle("2")
    agent, batch, weights = oracle_agent(v, double=double)
    for w in (None, weights, 100 * weights):
        extra = agent.loss(batch, weights=w).extra
        np.testing.assert_allclose(extra.td_error, v[expected], rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("loss", ["huber", "half_squared"])
def test_training_moves_only_the_value_of_the_action_taken(loss):
    """With SGD the step is minus the gradient: w delta / B at (s, a), delta clipped for Huber."""
    v = oracle("1")
    agent, batch, weights = oracle_agent(v, loss=loss)
    (before,), target = weights_of(agent.q_network), weights_of(agent.target_q_network)
    info = agent.train(batch, weights=weights)
    size = len(v["a_tm1"])
    delta = np.clip(v["td_error"], -1, 1) if loss == "huber" else v["td_error"]
    expected = np.zeros_like(before)
    expected[np.arange(size), v["a_tm1"].astype(int)] = v["is_weights"] * delta / size
    (after,) = weights_of(agent.q_network)
    np.testing.assert_allclose(after - before, expected, rtol=1e-4, atol=1e-6)
    # Rows of s' are read by the selector, and get no gradient; nor does the target network.
    np.testing.assert_array_equal(after[size:], before[size:])
    np.testing.assert_array_equal(weights_of(agent.target_q_network), target)
    np.testing.assert_allclose(info.extra.td_error, v["td_error"], rtol=1e-5, atol=1e-5)
    assert agent.train_step_counter.numpy() == 1


def test_gradient_of_a_network_is_the_numerical_one():
    """Through hidden units shared by Q(s, a) and the selector: still only Q(s, a) counts."""
    random = np.random.default_rng(0)

    def network(spec, actions):
        return MlpQNetwork(spec, actions, layer_units=(4,), activation="tanh", dueling=True)

    agent = make_agent(6, 3, network, loss="half_squared", optimizer=tf.keras.optimizers.SGD(1.0))
    batch = experience(
        *(6, [0, 1, 2], [0, 1, 2], random.normal(size=3), [0.9, 0.0, 0.5], [3, 4, 5])
    )
    kernel = agent.q_network.trainable_variables[0]
    before = kernel.numpy()
    # The target is held fixed, as the equation says: y from the values before any change.
    q = agent.q_network(batch.observation[:, 0])[0].numpy()
    y = q[np.arange(3), [0, 1, 2]] + agent.loss(batch).extra.td_error.numpy()

    def loss_at(value):
        kernel.assign(value)
        q = agent.q_network(batch.observation[:, 0])[0].numpy().astype(np.float64)
        return np.mean(0.5 * (y - q[np.arange(3), [0, 1, 2]]) ** 2)

    numeric, step = np.zeros_like(before), 1e-2
    for index in np.ndindex(*before.shape):
        shift = np.zeros_like(before)
        shift[index] = step
        numeric[index] = (loss_at(before + shift) - loss_at(before - shift)) / (2 * step)
    kernel.assign(before)
    agent.train(batch)
    np.testing.assert_allclose(before - kernel.numpy(), numeric, rtol=1e-2, atol=1e-4)
    assert np.abs(numeric).max() > 0.01


def test_gamma_to_the_m():
    """The batch brings gamma^(m-1); the agent multiplies the last factor, and 0 stays 0."""
    agent = make_agent(3, 2, gamma=0.5)
    agent.target_q_network.variables[0].assign([[0, 0], [0, 0], [8, 4]])
    agent.q_network.variables[0].assign([[1, 0], [1, 0], [3, 2]])
    batch = experience(3, [0, 0, 0], [0, 0, 0], [1, 1, 1], [1.0, 0.25, 0.0], [2, 2, 2])
    td_error = agent.loss(batch).extra.td_error
    np.testing.assert_allclose(td_error, [1 + 0.5 * 8 - 1, 1 + 0.125 * 8 - 1, 1 - 1])


def test_the_step_from_last_to_first_is_no_transition():
    agent = make_agent(3, 2)
    batch = experience(3, [0, 1], [0, 1], [5.0, 5.0], [1.0, 1.0], [2, 2], ts.StepType.LAST)
    info = agent.train(batch)
    np.testing.assert_array_equal(info.extra.td_error, [0, 0])
    assert info.loss == 0
    np.testing.assert_array_equal(weights_of(agent.q_network)[0], np.zeros([3, 2]))


@pytest.mark.parametrize(("norm", "scale"), [(None, 1.0), (10.0, 1.0), (1.0, 1 / 5)])
def test_gradients_are_clipped_by_their_global_norm(norm, scale):
    agent = make_agent(3, 2, loss="half_squared", gradient_clip_norm=norm)
    # The gradients are -6 / 2 and -8 / 2: norm 5, each below it.
    agent.train(experience(3, [0, 1], [0, 1], [6.0, 8.0], [0.0, 0.0], [2, 2]))
    expected = np.array([[3, 0], [0, 4], [0, 0]]) * scale
    np.testing.assert_allclose(weights_of(agent.q_network)[0], expected, rtol=1e-6)


def test_clipping_oracle():
    """Each of 21 entries of a 3 x 7 table gets the vector's gradient."""
    v = oracle("clip_global_norm", "optimiser")
    agent = make_agent(4, 7, loss="half_squared", gradient_clip_norm=float(v["clip"]))
    s, a = (index.reshape(-1) for index in np.indices([3, 7]))
    returns = -21 * v["grads"].reshape(-1)
    agent.train(experience(4, s, a, returns, np.zeros(21), np.full(21, 3)))
    assert v["norm"] > v["clip"]
    moved = weights_of(agent.q_network)[0][:3]
    np.testing.assert_allclose(moved, -v["clipped"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("clip", [None, 40.0])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_input_gives_a_nan_loss_and_leaves_the_parameters(bad, clip):
    agent = make_agent(3, 2, loss="half_squared", gradient_clip_norm=clip)
    good = experience(3, [0, 1], [0, 1], [6.0, 8.0], [0.0, 0.0], [2, 2])
    agent.train(good)
    before = weights_of(agent.q_network)
    info = agent.train(experience(3, [0, 1], [0, 1], [bad, 1.0], [0.0, 0.0], [2, 2]))
    assert np.isnan(info.loss)
    np.testing.assert_array_equal(weights_of(agent.q_network), before)
    assert np.isfinite(agent.train(good).loss)
    assert np.abs(weights_of(agent.q_network)[0] - before[0]).max() > 0.1


@pytest.mark.parametrize("bad", [np.nan, 1e30])
def test_adam_stays_finite(bad):
    """1e30 overflows in Adam's squares if it is let through."""
    agent = make_agent(3, 2, loss="half_squared", optimizer=tf.keras.optimizers.Adam(0.1))
    for value in (1.0, bad, 1.0):
        agent.train(experience(3, [0], [0], [value], [0.0], [2]))
        assert np.isfinite(weights_of(agent.q_network)).all()
        assert all(np.isfinite(v.numpy()).all() for v in agent._optimizer.variables)


@pytest.mark.parametrize("period", [1, 3])
def test_target_is_copied_every_period_and_only_then(period):
    agent = make_agent(3, 2, target_update_period_steps=period)
    batch = experience(3, [0], [1], [100.0], [0.0], [2])  # each Huber step adds 1 to Q(0, 1)
    copied = 0.0
    for step in range(1, 8):
        agent.train(batch)
        if step % period == 0:
            copied = float(step)
        assert weights_of(agent.q_network)[0][0, 1] == step
        assert weights_of(agent.target_q_network)[0][0, 1] == copied


def test_initialize_copies_into_the_target():
    agent = make_agent(4, 3, MlpQNetwork)
    pairs = zip(weights_of(agent.q_network), weights_of(agent.target_q_network))
    assert all((online == target).all() for online, target in pairs)
    ids = {id(v) for v in agent.q_network.variables}
    assert ids.isdisjoint(id(v) for v in agent.target_q_network.variables)


def test_checkpoint_holds_network_target_optimizer_and_the_count_to_the_next_copy(tmp_path):
    batch = experience(3, [0], [1], [100.0], [0.0], [2])

    def fresh():
        adam = tf.keras.optimizers.Adam(0.1)
        return make_agent(3, 2, target_update_period_steps=3, optimizer=adam)

    agent = fresh()
    for _ in range(4):
        agent.train(batch)
    path = tf.train.Checkpoint(agent=agent).save(str(tmp_path / "c"))
    agent.train(batch)
    agent.train(batch)
    other = fresh()
    tf.train.Checkpoint(agent=other).restore(path)
    other.train(batch)
    other.train(batch)  # the sixth step: a copy
    for name in ("_q_network", "_target_q_network"):
        pair = weights_of(getattr(agent, name)), weights_of(getattr(other, name))
        np.testing.assert_array_equal(*pair)
    assert agent.train_step_counter.numpy() == other.train_step_counter.numpy() == 6
    np.testing.assert_array_equal(weights_of(other.q_network), weights_of(other.target_q_network))


class WithSpareParts(MlpQNetwork):
    """A user's network with a layer that the values do not depend on."""

    def __init__(self, observation_spec, action_spec, name="WithSpareParts"):
        super().__init__(observation_spec, action_spec, layer_units=(), name=name)
        self._spare = tf.keras.layers.Dense(3)

    def call(self, observation, step_type=None, network_state=(), training=False):
        self._spare(observation)
        return super().call(observation, step_type, network_state, training)


def test_variables_without_gradient_are_left_alone():
    agent = make_agent(3, 2, WithSpareParts)
    assert len(agent.q_network.trainable_variables) == 4
    before = {v.ref(): v.numpy() for v in agent.q_network.variables}
    agent.train(experience(3, [0], [1], [100.0], [0.0], [2]))
    changed = [(v.numpy() != before[v.ref()]).any() for v in agent.q_network.variables]
    assert sum(changed) == 2


def test_regularisation_of_the_network_is_in_the_loss():
    def network(spec, action_spec):
        def model(spec, actions):
            layer = tf.keras.layers.Dense(
                *(actions, None, False, "ones"), kernel_regularizer=tf.keras.regularizers.L2(0.5)
            )
            return tf.keras.Sequential([tf.keras.Input(spec.shape), layer])

        return KerasQNetwork(spec, action_spec, model=model)

    agent = make_agent(3, 2, network)
    info = agent.loss(experience(3, [0], [0], [1.0], [0.0], [2]))
    np.testing.assert_allclose(info.loss, 0.0 + 0.5 * 6)


def test_tf_agents_own_network_fits():
    agent = make_agent(3, 2, lambda s, a: q_network.QNetwork(s, a, fc_layer_params=(4,)))
    info = agent.train(experience(3, [0], [1], [1.0], [0.0], [2]))
    assert np.isfinite(info.loss)


SHARED = tf.keras.Sequential([tf.keras.layers.Dense(2)])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"loss": "l1"}, "huber"),
        ({"network": lambda s, a: MlpQNetwork(s, bounded(3))}, "network does not fit"),
        (
            {"network": lambda s, a: KerasQNetwork(s, a, model=lambda *_: SHARED)},
            "network does not fit",
        ),
    ],
)
def test_what_cannot_work_is_refused(kwargs, message):
    with pytest.raises(ConfigurationError, match=message):
        make_agent(3, 2, **kwargs)


@pytest.mark.parametrize(
    "spec", [bounded(2, tf.float32), bounded(2, shape=(2,)), (bounded(2),) * 2]
)
def test_only_one_discrete_action(spec):
    time_step_spec = ts.time_step_spec(tf.TensorSpec([3], tf.float32))
    with pytest.raises(ConfigurationError, match="one discrete action"):
        NStepDqnAgent(time_step_spec, spec, network=table, optimizer=tf.keras.optimizers.SGD())
