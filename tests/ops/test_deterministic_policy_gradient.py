"""The policy's loss against the oracle vectors: its gradient is minus dq/da, clipped."""

import numpy as np
import oracles
import pytest
import tensorflow as tf

from tfdrl.ops import deterministic_policy_gradient


def gradient(action, dq_da, clip):
    action = tf.constant(action)
    with tf.GradientTape() as tape:
        tape.watch(action)
        loss = deterministic_policy_gradient.policy_loss(action, tf.constant(dq_da), clip)
    return tape.gradient(loss, action), loss


@pytest.mark.parametrize(("clip", "expected"), [(True, "elementwise"), (False, "unclipped")])
def test_gradient_oracle(clip, expected):
    v = oracles.load("dpg", "0")
    found, loss = gradient(v["a_t"], v["dqda_t"], float(v["clip"]) if clip else None)
    np.testing.assert_allclose(found, v[f"grad_a_{expected}"], rtol=1e-12)
    np.testing.assert_allclose(loss, 0.5 * np.sum(v[f"grad_a_{expected}"] ** 2, axis=1), rtol=1e-9)


def test_clipping_is_not_that_of_the_norm():
    v = oracles.load("dpg", "0")
    found, _ = gradient(v["a_t"], v["dqda_t"], 1.0)
    assert np.abs(found - v["grad_a_l2"]).max() > 0.1


def test_an_action_of_several_axes():
    random = np.random.default_rng(0)
    action, dq_da = random.normal(size=(2, 4, 2, 3))
    found, loss = gradient(action, dq_da, None)
    np.testing.assert_allclose(found, -dq_da, rtol=1e-12)
    assert loss.shape == [4]
