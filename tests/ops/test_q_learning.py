"""Q-learning errors: values, gradients, where gradient must not flow, and siblings told apart."""

import numpy as np
import oracles
import pytest
import tensorflow as tf

from tfdrl.ops import q_learning

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def arguments(v, selector):
    names = ("q_tm1", "a_tm1", "n_step_return", "bootstrap_discount", "q_target_t", selector)
    return [tf.constant(v[name], tf.int32 if name == "a_tm1" else tf.float32) for name in names]


@pytest.mark.parametrize("case", oracles.cases("double_q"))
def test_double_q_oracle(case):
    v = oracles.load("double_q", case)
    td = q_learning.td_errors(*arguments(v, "q_online_t"))
    np.testing.assert_allclose(td, v["td_error"], **TOLERANCE)
    np.testing.assert_allclose(np.abs(td), v["priority"], **TOLERANCE)
    np.testing.assert_allclose(q_learning.half_squared(td), v["half_l2"], **TOLERANCE)
    np.testing.assert_allclose(q_learning.huber(td), v["huber"], **TOLERANCE)


@pytest.mark.parametrize("case", oracles.cases("double_q"))
def test_dqn_oracle(case):
    v = oracles.load("double_q", case)
    td = q_learning.td_errors(*arguments(v, "q_target_t"))
    np.testing.assert_allclose(td, v["dqn_td_error"], **TOLERANCE)


def test_the_online_network_selects_and_the_target_network_evaluates():
    one = tf.ones([1])
    online, target = tf.constant([[0.0, 5.0]]), tf.constant([[7.0, 1.0]])
    q, action = tf.zeros([1, 2]), tf.zeros([1], tf.int32)
    double = q_learning.td_errors(q, action, one, one, target, online)
    swapped = q_learning.td_errors(q, action, one, one, online, target)
    plain = q_learning.td_errors(q, action, one, one, target, target)
    assert (double[0], swapped[0], plain[0]) == (1 + 1, 1 + 0, 1 + 7)


def test_no_bootstrap_after_a_termination():
    q, action = tf.constant([[0.5, 0.0]]), tf.zeros([1], tf.int32)
    huge = tf.constant([[1e6, 2e6]])
    td = q_learning.td_errors(q, action, tf.constant([2.0]), tf.zeros([1]), huge, huge)
    assert td[0] == 1.5


def losses_of(loss, v):
    def f(q_tm1, q_target, q_selector):
        td = q_learning.td_errors(q_tm1, *arguments(v, "q_online_t")[1:4], q_target, q_selector)
        return tf.reduce_sum(loss(td))

    return f


@pytest.mark.parametrize("loss", [q_learning.half_squared, q_learning.huber])
def test_gradient(loss):
    """d loss / d Q(s, a) is -delta, clipped for Huber; 0 for other actions and for the target."""
    v = oracles.load("double_q", "1")
    inputs = [tf.constant(v[name], tf.float32) for name in ("q_tm1", "q_target_t", "q_online_t")]
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        total = losses_of(loss, v)(*inputs)
    by_q, by_target, by_selector = tape.gradient(total, inputs)
    delta = v["td_error"] if loss is q_learning.half_squared else np.clip(v["td_error"], -1, 1)
    expected = np.zeros_like(v["q_tm1"])
    expected[np.arange(len(delta)), v["a_tm1"].astype(int)] = -delta
    assert (np.abs(v["td_error"]) > 1).any() and (np.abs(v["td_error"]) < 1).any()
    np.testing.assert_allclose(by_q, expected, **TOLERANCE)
    assert by_target is None and by_selector is None


def test_gradient_is_the_numerical_one():
    v = oracles.load("double_q", "1")
    fixed = [tf.constant(v[name], tf.float32) for name in ("q_target_t", "q_online_t")]
    for loss in (q_learning.half_squared, q_learning.huber):
        theory, numeric = tf.test.compute_gradient(
            lambda q, loss=loss: losses_of(loss, v)(q, *fixed),
            [tf.constant(v["q_tm1"], tf.float32)],
            delta=1e-2,
        )
        np.testing.assert_allclose(theory[0], numeric[0], rtol=2e-2, atol=2e-2)


def test_huber_at_its_corner():
    td = tf.constant([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
    np.testing.assert_allclose(
        q_learning.huber(td), [1.5, 0.5, 0.125, 0.0, 0.125, 0.5, 1.5], rtol=1e-6
    )


def test_huber_of_a_huge_error_still_has_a_gradient():
    """Clipping the loss instead of its gradient would give 0."""
    td = tf.constant([1e6, -1e6])
    with tf.GradientTape() as tape:
        tape.watch(td)
        loss = q_learning.huber(td)
    np.testing.assert_array_equal(tape.gradient(loss, td), [1.0, -1.0])


def test_ranks_are_checked():
    q, action = tf.zeros([2, 3]), tf.zeros([2], tf.int32)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError)):
        q_learning.td_errors(q, action, tf.zeros([2, 1]), tf.ones([2]), q, q)


def test_dueling_oracle():
    v = oracles.load("dueling", "0")
    q = q_learning.dueling(
        tf.constant(v["value"], tf.float32), tf.constant(v["advantage"], tf.float32)
    )
    np.testing.assert_allclose(q, v["q"], **TOLERANCE)


def test_dueling_mean_is_over_actions_not_over_the_batch():
    value = tf.constant([[1.0], [2.0]])
    advantage = tf.constant([[3.0, 5.0], [100.0, 300.0]])
    np.testing.assert_allclose(q_learning.dueling(value, advantage), [[0, 2], [-98, 102]])
