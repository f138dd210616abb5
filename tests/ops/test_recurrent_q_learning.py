"""R2D2's equations: rescaling, n-step returns over sequences, double Q errors, priorities."""

import numpy as np
import oracles
import pytest
import tensorflow as tf

from tfdrl.ops import recurrent_q_learning, value_rescaling

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def float32(array):
    return tf.constant(array, tf.float32)


def test_rescaling_oracle():
    v = oracles.load("value_rescaling", "0")
    epsilon = float(v["eps"])
    np.testing.assert_allclose(value_rescaling.rescale(float32(v["x"]), epsilon), v["h"], 1e-6)
    found = value_rescaling.inverse(float32(v["x"]), epsilon)
    np.testing.assert_allclose(found, v["h_inv_of_x"], rtol=1e-5)


def test_rescaling_is_undone_in_float32_also_near_zero():
    x = np.concatenate([[0.0], np.logspace(-6, 5, 200)])
    x = np.concatenate([-x, x])
    there = value_rescaling.rescale(float32(x))
    np.testing.assert_allclose(value_rescaling.inverse(there), x, rtol=1e-5)
    exact = value_rescaling.inverse(tf.constant(x, tf.float64))
    np.testing.assert_allclose(value_rescaling.rescale(exact), x, rtol=1e-9, atol=1e-12)
    near = np.array([1e-7, 1e-6, 1e-5])
    np.testing.assert_allclose(value_rescaling.inverse(float32(near)), near * 2 / 1.002, rtol=1e-3)


@pytest.mark.parametrize("case", oracles.cases("nstep_sequence"))
def test_n_step_returns_oracle(case):
    v = oracles.load("nstep_sequence", case)
    arguments = [float32(v[name]) for name in ("r_t", "discount_t", "v_t")]
    settings = {"n": int(v["n"]), "lambda_": float(v["lambda_"])}
    found = recurrent_q_learning.n_step_returns(*arguments, **settings)
    np.testing.assert_allclose(found, v["returns"], **TOLERANCE)


def test_windows_end_with_their_episode():
    """A truncation bootstraps from the last value and lets nothing of the next episode in."""
    ones, values = tf.ones([4]), tf.constant([10.0, 20.0, 30.0, 40.0])
    end = tf.constant([False, True, False, False])
    found = recurrent_q_learning.n_step_returns(ones, 0.5 * ones, values, 3, end)
    second = 1 + 0.5 * 20
    expected = [1 + 0.5 * second, second, 1 + 0.5 * (1 + 0.5 * 40), 1 + 0.5 * 40]
    np.testing.assert_allclose(found, expected)


def arguments(v):
    q, q_target = float32(v["q_online"]), float32(v["q_target"])
    # In the oracle's layout reward and done at t arrive with observation t.
    discount = float(v["gamma"]) * (1.0 - v["done"][1:])
    return {
        "q": q[:-1],
        "action": tf.constant(v["actions"][:-1]),
        "reward": float32(v["reward"][1:]),
        "discount": float32(discount),
        "q_target": q_target[1:],
        "q_selector": q[1:],
        "n": int(v["n"]),
        "rescaling_epsilon": float(v["eps"]),
    }


@pytest.mark.parametrize("case", oracles.cases("r2d2"))
def test_r2d2_oracle(case):
    v = oracles.load("r2d2", case)
    td_error = recurrent_q_learning.td_errors(**arguments(v))
    np.testing.assert_allclose(td_error, v["td_error"], rtol=1e-4, atol=1e-4)
    found = recurrent_q_learning.sequence_loss(td_error, tf.ones_like(td_error), float(v["eta"]))
    np.testing.assert_allclose(found.priority, v["priority"], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.loss, v["loss_per_sequence"], rtol=1e-3)
    weighted = tf.reduce_mean(float32(v["is_weights"]) * found.loss)
    np.testing.assert_allclose(weighted, v["loss"], rtol=1e-3)


def test_gradient_flows_through_the_estimate_alone():
    v = oracles.load("r2d2", "1")
    given = arguments(v)
    watched = [given[name] for name in ("q", "q_target", "q_selector")]
    with tf.GradientTape() as tape:
        tape.watch(watched)
        td_error = recurrent_q_learning.td_errors(**given)
        loss = tf.reduce_sum(
            recurrent_q_learning.sequence_loss(td_error, tf.ones_like(td_error), 0.9).loss
        )
    estimate, target, selector = tape.gradient(loss, watched)
    assert target is None and selector is None
    one_hot = tf.one_hot(given["action"], given["q"].shape[-1])
    np.testing.assert_allclose(estimate, -td_error[..., None] * one_hot, **TOLERANCE)


def test_masked_steps_count_neither_for_loss_nor_for_priority():
    td_error = tf.constant([[1.0], [100.0], [3.0]])
    found = recurrent_q_learning.sequence_loss(td_error, tf.constant([[1.0], [0.0], [1.0]]), 0.9)
    np.testing.assert_allclose(found.loss, [0.5 * (1 + 9)])
    np.testing.assert_allclose(found.priority, [0.9 * 3 + 0.1 * 2])


def test_window_without_steps():
    with pytest.raises(ValueError, match="n = 0"):
        recurrent_q_learning.n_step_returns(tf.ones([2]), tf.ones([2]), tf.ones([2]), 0)
