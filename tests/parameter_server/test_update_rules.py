"""Every update rule on a parameter server, against oracles, equations and Keras."""

import numpy as np
import oracles
import pytest
import tensorflow as tf
from running_roles import free_port

from tfdrl.parameter_server.protocol import ACCEPTED, Header, Layout
from tfdrl.parameter_server.settings import ParameterServerSettings
from tfdrl.parameter_server.shard import Shard
from tfdrl.topology import Address


@pytest.fixture
def run(tmp_path):
    """`run(settings, start, gradients)`: the parameters after each gradient, by a real server."""

    def path(settings, start, gradients, steps=1):
        layout = Layout(0, ("w",), (np.shape(start),))
        initial, address = np.asarray(start, np.float32), Address("127.0.0.1", free_port())
        shard = Shard(layout, [initial], settings, address, tmp_path)
        graph, parameters = shard.graph, []
        with tf.compat.v1.Session(shard.target, graph.graph) as session:
            push = session.make_callable(graph.push, [graph.header, graph.loss, graph.flat])
            for version, gradient in enumerate(gradients):
                header, gradient = Header(0, version, steps), np.asarray(gradient, np.float32)
                state, flat, _ = push(header, 0.0, gradient)
                assert state[0] == ACCEPTED
                parameters.append(flat.reshape(initial.shape))
        shard.close()
        return np.array(parameters)

    return path


def steps_of(start, parameters):
    return np.diff(np.concatenate([np.asarray(start, np.float32)[None], parameters]), axis=0)


def check_oracle(parameters, v):
    np.testing.assert_allclose(parameters, v["params"], rtol=1e-5, atol=1e-6)
    # Parameters hardly move, so the steps are compared, too.
    expected = np.diff(np.concatenate([v["params0"][None], v["params"]]), axis=0)
    np.testing.assert_allclose(steps_of(v["params0"], parameters), expected, rtol=5e-3, atol=5e-7)


def test_rmsprop_is_that_of_a3c(run):
    """Mnih 2016, section 4: not centred, from 0, epsilon inside the root."""
    v = oracles.load("optimiser", "rmsprop_a3c")
    settings = ParameterServerSettings(
        rule="rmsprop", learning_rate=float(v["lr"]), decay=float(v["decay"])
    )
    assert settings.rule_epsilon == v["eps"] == 0.1
    parameters = run(settings, v["params0"], v["grads"])
    check_oracle(parameters, v)
    # The same numbers by the release of IMPALA, whose average starts at 1.
    other = oracles.load("optimiser", "rmsprop_tf1_impala")
    moved = np.abs(other["params"][-1] - other["params0"]).max()
    assert np.abs(parameters - other["params"]).max() > 0.02 * moved


def test_rmsprop_by_hand(run):
    """g = 3: n = 0.25 * 9; then g = 1: n = 0.75 * 0.25 * 9 + 0.25 * 1."""
    settings = ParameterServerSettings(rule="rmsprop", learning_rate=0.5, decay=0.75, epsilon=4.0)
    first = 10.0 - 0.5 * 3.0 / np.sqrt(0.25 * 9 + 4.0)
    second = first - 0.5 * 1.0 / np.sqrt(0.75 * 0.25 * 9 + 0.25 * 1 + 4.0)
    found = run(settings, [10.0], [[3.0], [1.0]])[:, 0]
    np.testing.assert_allclose(found, [first, second], rtol=1e-6)


def test_adagrad_is_the_papers(run):
    """Duchi 2011: the sum of squares starts at 0."""
    v = oracles.load("optimiser", "adagrad")
    settings = ParameterServerSettings(rule="adagrad", learning_rate=float(v["lr"]))
    assert settings.rule_epsilon == v["eps"] == 1e-8
    check_oracle(run(settings, v["params0"], v["grads"]), v)


def test_adagrad_by_hand(run):
    """Epsilon is outside of the root: 3 / (sqrt(7 + 9) + 2) and 1 / (sqrt(7 + 9 + 1) + 2)."""
    settings = ParameterServerSettings(
        rule="adagrad", learning_rate=0.5, epsilon=2.0, initial_accumulator=7.0
    )
    found = run(settings, [10.0], [[3.0], [1.0]])[:, 0]
    first = 10.0 - 0.5 * 3.0 / (4.0 + 2.0)
    np.testing.assert_allclose(found, [first, first - 0.5 / (np.sqrt(17.0) + 2.0)], rtol=1e-6)


def test_adagrad_without_any_gradient_yet_stays_finite(run):
    """0 / (sqrt(0) + epsilon): a unit that never fired must not become 0 / 0."""
    settings = ParameterServerSettings(rule="adagrad", learning_rate=0.5)
    found = run(settings, [5.0, -5.0], [[0.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    # The first step is the learning rate, whatever the gradient.
    np.testing.assert_allclose(found, [[5.0, -5.0], [5.0, -5.5], [5.0, -5.5]], rtol=1e-6)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_sgd(run, shape):
    settings = ParameterServerSettings(rule="sgd", learning_rate=0.25)
    gradients = [np.full(shape, g) for g in (4.0, -8.0, 0.5)]
    found = run(settings, np.full(shape, 1.0), [g.ravel() for g in gradients])
    for parameters, expected in zip(found, (1.0 - 1.0, 0.0 + 2.0, 2.0 - 0.125)):
        np.testing.assert_array_equal(parameters, np.full(shape, expected))


@pytest.mark.parametrize("epsilon", [None, 0.5])
def test_adam_is_keras(run, epsilon):
    """Both add epsilon to the root of the uncorrected moment ("epsilon hat", Kingma 2015, 2.1)."""
    settings = ParameterServerSettings(
        rule="adam", learning_rate=0.1, beta_1=0.8, beta_2=0.95, epsilon=epsilon
    )
    start = np.array([1.0, -2.0, 0.5], np.float32)
    gradients = np.random.default_rng(0).normal(size=(10, 3))
    variable = tf.Variable(start)
    keras = tf.keras.optimizers.Adam(
        0.1, beta_1=0.8, beta_2=0.95, epsilon=epsilon or 1e-8, jit_compile=False
    )
    found = run(settings, start, gradients)
    for gradient, parameters in zip(gradients, found):
        keras.apply_gradients([(tf.constant(gradient, tf.float32), variable)])
        np.testing.assert_allclose(parameters, variable, rtol=1e-5, atol=1e-6)
    if epsilon is None:  # the first step is the learning rate
        np.testing.assert_allclose(found[0], start - 0.1 * np.sign(gradients[0]), rtol=1e-4)


def test_the_learning_rate_falls_linearly_over_global_steps(run):
    """Each gradient is of 30 steps: 0, 30, 60, 90 of 100 are over, then all are."""
    settings = ParameterServerSettings(rule="sgd", learning_rate=2.0, anneal_steps=100)
    found = run(settings, [0.0], [[1.0]] * 6, steps=30)[:, 0]
    moves = -np.diff(np.concatenate([[0.0], found]))
    np.testing.assert_allclose(
        moves, [2.0 * (1 - done / 100) for done in (0, 30, 60, 90, 100, 100)], atol=1e-6
    )
