"""Importance weights against the oracle vectors; priorities that Reverb can bear."""

import numpy as np
import oracles
import pytest
import tensorflow as tf

from tfdrl.ops import priorities

CASES = [case for case in oracles.cases("per") if case != "evict"]


@pytest.mark.parametrize("case", CASES)
def test_importance_weights_oracle(case):
    v = oracles.load("per", case)
    probability = v["probabilities"][v["indices"].astype(int)]
    weights = priorities.importance_weights(
        tf.constant(probability), tf.constant(len(v["priorities"])), float(v["beta"])
    )
    assert weights.dtype == tf.float32
    np.testing.assert_allclose(weights, v["weights_batch_max"], rtol=1e-5, atol=1e-6)
    # The sibling divides by the maximum over the whole buffer.
    of_all = (len(v["priorities"]) * v["probabilities"]) ** -float(v["beta"])
    by_all = (of_all / of_all.max())[v["indices"].astype(int)]
    np.testing.assert_allclose(by_all, v["weights_buffer_max"], rtol=1e-5)
    is_same = np.allclose(weights, by_all, rtol=1e-3)
    assert is_same == bool(np.isclose(by_all.max(), 1.0, rtol=1e-3)), "it was in the batch"


def test_the_rarest_item_weighs_most():
    weights = priorities.importance_weights(tf.constant([0.5, 0.1, 0.4]), tf.constant(3), 0.4)
    np.testing.assert_allclose(weights, [(1 / 5) ** 0.4, 1.0, (1 / 4) ** 0.4], rtol=1e-6)


def test_tiny_probabilities_do_not_overflow():
    """With p = 1e-300 and beta = 1 the unnormalised weight is near float64's largest."""
    weights = priorities.importance_weights(
        tf.constant([1e-300, 1.0], tf.float64), tf.constant(1), 1.0
    )
    np.testing.assert_allclose(weights, [1.0, 0.0], atol=1e-30)


def test_initial_priority():
    """|G + gamma^m max Q(s_{t+m}) - Q(s_t, a_t)|, without a bootstrap after a termination."""
    priority = priorities.initial_priorities(
        n_step_return=np.array([1.0, 1.0, -2.0]),
        discount=np.array([0.81, 0.0, 0.9]),
        q_t=np.array([3.0, 0.25, 1.0]),
        max_q_tpn=np.array([2.0, 1e6, 1.0]),
    )
    np.testing.assert_allclose(priority, [0.38, 0.75, 2.1])


BAD = np.array([-2.0, np.nan, np.inf, -np.inf])


def test_sanitise():
    given = np.concatenate([BAD, [0.0, 0.5, 1e9]]).reshape(7, 1)
    clean, bad = priorities.sanitise(given)
    assert bad == 4
    assert clean.shape == given.shape and clean.dtype == np.float64
    least, most = priorities.MINIMUM_PRIORITY, priorities.MAXIMUM_PRIORITY
    assert np.isfinite(clean).all() and (clean >= least).all() and (clean <= most).all()
    np.testing.assert_allclose(
        clean[:, 0], [2 + least, least, least, least, least, 0.5 + least, most], rtol=1e-12
    )


def test_good_priorities_are_not_counted_and_keep_their_order():
    given = np.abs(np.random.default_rng(0).normal(size=(20, 3))).astype(np.float32)
    clean, bad = priorities.sanitise(given)
    assert bad == 0
    np.testing.assert_allclose(clean, given.astype(np.float64), rtol=0, atol=2e-6)
    np.testing.assert_array_equal(clean.argsort(axis=None), given.argsort(axis=None))
