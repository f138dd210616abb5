"""Optimizers step as the equations under their names say, over the twelve gradients of a vector."""

import pathlib

import numpy as np
import pytest
import tensorflow as tf

from tfdrl.agents import optimizers

_ORACLES = pathlib.Path(__file__).resolve().parents[1] / "data" / "oracles.npz"


def oracle(case):
    with np.load(_ORACLES) as arrays:
        prefix = f"optimiser/{case}/"
        return {k.rsplit("/", 1)[1]: arrays[k] for k in arrays if k.startswith(prefix)}


def path(optimizer, start, gradients):
    """The parameters after each gradient, in the optimizer's own precision."""
    variable = tf.Variable(start, dtype=tf.float32)
    parameters = []
    for gradient in gradients:
        optimizer.apply_gradients([(tf.constant(gradient, tf.float32), variable)])
        parameters.append(variable.numpy())
    return np.array(parameters)


def of_case(factory, case):
    v = oracle(case)
    optimizer = factory(float(v["lr"]), decay=float(v["decay"]), epsilon=float(v["eps"]))
    return path(optimizer, v["params0"], v["grads"]), v


@pytest.mark.parametrize(
    ("factory", "case"),
    [
        (optimizers.rmsprop, "rmsprop_a3c"),
        (optimizers.rmsprop_centred, "rmsprop_centred_apex"),
        (optimizers.rmsprop_centred, "rmsprop_centred_dqn"),
    ],
)
def test_rmsprop_oracle(factory, case):
    parameters, v = of_case(factory, case)
    # The steps are compared, not the parameters, which hardly move.
    steps = np.diff(np.concatenate([v["params0"][None], v["params"]]), axis=0)
    ours = np.diff(np.concatenate([v["params0"][None].astype(np.float32), parameters]), axis=0)
    np.testing.assert_allclose(ours, steps, rtol=5e-3, atol=5e-7)
    np.testing.assert_allclose(parameters, v["params"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("factory", "case"),
    [
        (optimizers.rmsprop, "rmsprop_tf1_impala"),  # its average starts at 1
        (optimizers.rmsprop, "rmsprop_centred_dqn"),
        (optimizers.rmsprop, "rmsprop_centred_apex"),
    ],
)
def test_rmsprop_is_not_its_sibling(factory, case):
    parameters, v = of_case(factory, case)
    moved = np.abs(v["params"][-1] - v["params0"]).max()
    assert np.abs(parameters - v["params"]).max() > 0.02 * moved


def test_defaults_of_ape_x():
    """Ape-X, appendix C: learning rate 0.00025 / 4, decay 0.95, epsilon 1.5e-7."""
    v = oracle("rmsprop_centred_apex")
    parameters = path(optimizers.rmsprop_centred(), v["params0"], v["grads"])
    np.testing.assert_allclose(parameters, v["params"], rtol=1e-5, atol=1e-6)


def test_first_steps_of_the_others():
    """Adam's first step is the learning rate whatever the gradient; SGD's is proportional."""
    start, gradient = np.zeros(3), [[0.1, -5.0, 70.0]]
    adam = path(optimizers.adam(0.01), start, gradient)[0]
    np.testing.assert_allclose(adam, [-0.01, 0.01, -0.01], rtol=1e-3)
    sgd = path(optimizers.sgd(0.5), start, gradient)[0]
    np.testing.assert_allclose(sgd, [-0.05, 2.5, -35.0], rtol=1e-6)
