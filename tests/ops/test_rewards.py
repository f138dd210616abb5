"""Reward transforms against the oracle vectors."""

import numpy as np
import oracles
import pytest
import tensorflow as tf

from tfdrl.ops.rewards import REWARD_CLIPPINGS, clip_rewards

ORACLES = {
    "none": "reward",
    "abs_one": "abs_one",
    "soft_asymmetric": "soft_asymmetric_code",
    "asymmetric_paper": "asymmetric_paper",
}


@pytest.mark.parametrize("kind", REWARD_CLIPPINGS)
def test_oracle(kind):
    v = oracles.load("reward_clipping", "table")
    clipped = clip_rewards(tf.constant(v["reward"], tf.float32), kind)
    np.testing.assert_allclose(clipped, v[ORACLES[kind]], rtol=1e-5, atol=1e-5)
    assert clipped.dtype == tf.float32
    for other in set(REWARD_CLIPPINGS) - {kind}:
        assert np.abs(clipped - v[ORACLES[other]]).max() > 0.1, other


def test_any_shape():
    rewards = tf.constant([[[-2.0], [0.5]]])
    for kind in REWARD_CLIPPINGS:
        assert clip_rewards(rewards, kind).shape == rewards.shape


def test_an_unknown_kind_is_refused_with_the_names():
    with pytest.raises(ValueError, match="'tanh'; use one of none, abs_one, soft_asymmetric, asym"):
        clip_rewards(tf.zeros([1]), "tanh")
