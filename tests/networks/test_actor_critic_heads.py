"""Policy heads of actor-critic networks: Categorical and Gaussian, and actions they refuse."""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.specs import BoundedTensorSpec

from tfdrl.errors import ConfigurationError
from tfdrl.networks.actor_critic_heads import categorical
from tfdrl.networks.actor_critic_networks import (
    DeepActorCriticNetwork,
    MlpActorCriticNetwork,
    ShallowActorCriticNetwork,
    check_distribution,
)

VECTOR = tf.TensorSpec([3], tf.float32)
IMAGE = tf.TensorSpec([84, 84, 4], tf.uint8)
CONTINUOUS = BoundedTensorSpec([2], tf.float32, -1.0, 1.0)


def discrete(actions, dtype=tf.int32):
    return BoundedTensorSpec([], dtype, 0, actions - 1)


def random_input(spec, outer):
    random = np.random.default_rng(0)
    if spec.dtype.is_integer:
        return tf.constant(random.integers(0, 256, [*outer, *spec.shape]), spec.dtype)
    return tf.constant(random.normal(size=[*outer, *spec.shape]), spec.dtype)


@pytest.mark.parametrize("outer", [[5], [5, 2]])
@pytest.mark.parametrize("dtype", [tf.int32, tf.int64])
def test_one_discrete_action(outer, dtype):
    network = MlpActorCriticNetwork(VECTOR, discrete(4, dtype))
    (distribution, value), state = network(random_input(VECTOR, outer))
    assert isinstance(distribution, tfp.distributions.Categorical)
    assert distribution.dtype == dtype
    assert distribution.batch_shape == outer and distribution.event_shape == []
    assert distribution.logits.shape == [*outer, 4]
    assert distribution.log_prob(tf.zeros(outer, dtype)).shape == outer
    assert value.shape == outer and value.dtype == tf.float32
    assert state == () == network.state_spec


@pytest.mark.parametrize("outer", [[5], [5, 2]])
@pytest.mark.parametrize("shape", [[2], [1], [2, 3], []])
def test_continuous_actions(outer, shape):
    spec = BoundedTensorSpec(shape, tf.float32, -1.0, 1.0)
    network = MlpActorCriticNetwork(VECTOR, spec)
    (distribution, value), _ = network(random_input(VECTOR, outer))
    assert distribution.batch_shape == outer and distribution.event_shape == shape
    assert distribution.log_prob(distribution.sample()).shape == outer
    assert distribution.entropy().shape == outer
    assert value.shape == outer
    for parameter in (distribution.distribution.loc, distribution.distribution.scale):
        assert parameter.shape == [*outer, *shape]


@pytest.mark.parametrize("initial_std", [1e-3, 1.0, 50.0, 1000.0])
def test_initial_standard_deviation(initial_std):
    network = MlpActorCriticNetwork(VECTOR, CONTINUOUS, initial_std=initial_std)
    (distribution, _), _ = network(random_input(VECTOR, [6]))
    np.testing.assert_allclose(distribution.stddev(), np.full([6, 2], initial_std), rtol=1e-5)


def product_by_hand(logits, counts, action):
    """Log-probability and entropy, [B]: sums over the elements of an action [B, k]."""
    log_prob = entropy = 0.0
    for i, part in enumerate(np.split(logits, np.cumsum(counts)[:-1], axis=-1)):
        log_pi = part - np.log(np.exp(part).sum(-1, keepdims=True))
        log_prob = log_prob + np.take_along_axis(log_pi, action[:, [i]], -1)[:, 0]
        entropy = entropy - (np.exp(log_pi) * log_pi).sum(-1)
    return log_prob, entropy


@pytest.mark.parametrize("counts", [[3, 3], [3, 5, 1], [4]])
def test_product_of_categoricals_by_hand(counts):
    spec = BoundedTensorSpec([len(counts)], tf.int32, 0, np.array(counts) - 1)
    random = np.random.default_rng(0)
    logits = 3 * random.normal(size=(50, sum(counts)))
    action = random.integers(0, counts, (50, len(counts)))
    given = tf.constant(logits, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(given)
        distribution = categorical(given, spec)
        found = distribution.log_prob(action), distribution.entropy()
    for one, right in zip(found, product_by_hand(logits, counts, action)):
        np.testing.assert_allclose(one, right, rtol=1e-4, atol=1e-5)
    gradient = tape.gradient(found, given)
    assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0.1
    samples = distribution.sample(200, seed=[1, 2]).numpy()
    assert samples.dtype == np.int32 and samples.shape == (200, 50, len(counts))
    assert samples.min() == 0 and (samples.max(axis=(0, 1)) == np.array(counts) - 1).all()
    parts = np.split(logits, np.cumsum(counts)[:-1], axis=-1)
    np.testing.assert_array_equal(distribution.mode(), np.stack([p.argmax(-1) for p in parts], -1))


@pytest.mark.parametrize("outer", [[5], [5, 2]])
def test_an_array_of_discrete_actions(outer):
    spec = BoundedTensorSpec([2, 2], tf.int32, 0, [[1, 2], [0, 3]])
    network = MlpActorCriticNetwork(VECTOR, spec)
    (distribution, value), _ = network(random_input(VECTOR, outer))
    assert distribution.batch_shape == outer == value.shape and distribution.event_shape == [2, 2]
    assert distribution.log_prob(distribution.sample()).shape == outer
    (kernel,) = [v for v in network.trainable_variables if "logits/kernel" in v.name]
    assert kernel.shape[1] == 2 + 3 + 1 + 4
    check_distribution(network, spec)


def test_gaussian_log_prob_by_hand():
    network = MlpActorCriticNetwork(VECTOR, CONTINUOUS, initial_std=0.5)
    (distribution, _), _ = network(random_input(VECTOR, [6]))
    action = np.array([0.3, -2.0], np.float32)  # outside the bounds: the environment clips
    z = (action - distribution.mode().numpy()) / 0.5
    expected = (-0.5 * z**2 - np.log(0.5) - 0.5 * np.log(2 * np.pi)).sum(axis=-1)
    np.testing.assert_allclose(distribution.log_prob(action), expected, rtol=1e-5)


def test_the_standard_deviation_is_trained_and_does_not_depend_on_the_input():
    network = MlpActorCriticNetwork(VECTOR, CONTINUOUS)
    network.create_variables()
    (raw_std,) = [v for v in network.trainable_variables if "raw_std" in v.name]
    with tf.GradientTape() as tape:
        (distribution, _), _ = network(random_input(VECTOR, [6]))
        log_prob = tf.reduce_sum(distribution.log_prob(tf.ones([6, 2])))
    assert np.abs(tape.gradient(log_prob, raw_std)).min() > 0
    assert np.ptp(distribution.stddev(), axis=0).max() == 0


@pytest.mark.parametrize(
    ("factory", "spec"),
    [(MlpActorCriticNetwork, VECTOR), (ShallowActorCriticNetwork, IMAGE)],
)
def test_the_first_policy_is_almost_uniform(factory, spec):
    network = factory(spec, discrete(6))
    (distribution, _), _ = network(random_input(spec, [20]))
    probabilities = distribution.probs_parameter().numpy()
    np.testing.assert_allclose(probabilities, np.full([20, 6], 1 / 6), atol=0.01)
    assert np.ptp(probabilities) > 0


@pytest.mark.parametrize(
    "action",
    [
        BoundedTensorSpec([2], tf.int32, [0, 1], 2),
        BoundedTensorSpec([], tf.int32, 1, 2),
        tf.TensorSpec([], tf.int32),
        BoundedTensorSpec([2], tf.float64, -1, 1),
        (discrete(2), discrete(2)),
        {"move": discrete(2), "aim": CONTINUOUS},
    ],
)
@pytest.mark.parametrize("factory", [MlpActorCriticNetwork, DeepActorCriticNetwork])
def test_unsupported_actions(factory, action):
    spec = VECTOR if factory is MlpActorCriticNetwork else IMAGE
    with pytest.raises(ConfigurationError, match=r"supports discrete actions.*Box of floats"):
        factory(spec, action)


@pytest.mark.parametrize("initial_std", [0.0, -1.0, float("inf"), float("nan")])
def test_impossible_standard_deviations(initial_std):
    with pytest.raises(ConfigurationError, match="initial_std"):
        MlpActorCriticNetwork(VECTOR, CONTINUOUS, initial_std=initial_std)
