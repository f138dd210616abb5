"""Masked values and logits against the same computations over the allowed actions alone."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp

from tfdrl.ops import action_masks

MASKS = np.array([[1, 0, 1, 0], [0, 0, 1, 1], [0, 1, 0, 0], [1, 1, 1, 1]], np.int8)
VALUES = tf.constant([[1, 9, 2, 9], [9, 9, 4, 3], [9, -5, 9, 9], [1, 2, 4, 3]], tf.float32)


def categorical(logits):
    return tfp.distributions.Categorical(logits=logits)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, bool, np.int64, np.float32])
def test_the_best_of_what_is_allowed(dtype):
    mask = tf.constant(MASKS.astype(dtype))
    np.testing.assert_array_equal(action_masks.best_action(VALUES, mask), [2, 2, 1, 2])
    masked = action_masks.mask_values(VALUES, mask).numpy()
    np.testing.assert_array_equal(masked.argmax(axis=1), [2, 2, 1, 2])
    np.testing.assert_array_equal(masked.max(axis=1), [2, 4, -5, 4])
    np.testing.assert_array_equal(masked[MASKS == 1], VALUES.numpy()[MASKS == 1])


def test_values_that_are_nan_or_infinite_make_no_forbidden_action_the_best():
    for value in (np.nan, np.inf, -np.inf, -3.4e38):
        best = action_masks.best_action(tf.fill([4, 4], np.float32(value)), MASKS).numpy()
        assert MASKS[np.arange(4), best].all(), value


def test_a_row_that_allows_nothing_counts_as_one_that_allows_all():
    mask = tf.zeros([2, 4], tf.int8)
    np.testing.assert_array_equal(action_masks.mask_values(VALUES[:2], mask), VALUES[:2])
    np.testing.assert_array_equal(action_masks.best_action(VALUES[:2], mask), [1, 0])


def test_logits_are_of_the_distribution_over_what_is_allowed():
    logits, other = (
        np.random.default_rng(i).normal(size=(4, 4)).astype(np.float32) for i in (1, 2)
    )
    p, q = (categorical(action_masks.mask_values(tf.constant(x), MASKS)) for x in (logits, other))
    probabilities = p.probs_parameter().numpy()
    assert (probabilities[MASKS == 0] == 0.0).all()
    for row in range(4):
        is_allowed = MASKS[row] == 1
        small_p, small_q = (categorical(x[row][is_allowed]) for x in (logits, other))
        np.testing.assert_allclose(p[row].entropy(), small_p.entropy(), rtol=1e-5, atol=1e-6)
        found, right = (a.kl_divergence(b) for a, b in ((p[row], q[row]), (small_p, small_q)))
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-6)
        log_probs = p[row].log_prob(np.flatnonzero(is_allowed))
        np.testing.assert_allclose(log_probs, small_p.log_prob(range(is_allowed.sum())), atol=1e-6)


def test_gradients_are_finite_and_of_allowed_logits_alone():
    logits = tf.identity(VALUES)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        p = categorical(action_masks.mask_values(logits, MASKS))
        total = tf.reduce_sum(p.entropy() + p.log_prob([0, 2, 1, 3]) + p.kl_divergence(p))
    gradient = tape.gradient(total, logits).numpy()
    assert np.isfinite(gradient).all()
    assert (gradient[MASKS == 0] == 0.0).all()
    assert (gradient[[0, 1, 3]][MASKS[[0, 1, 3]] == 1] != 0.0).all()  # row 2 has no choice
