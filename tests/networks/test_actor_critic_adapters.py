"""Keras models and TF-Agents' own networks as actor-critic networks."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.networks import (
    actor_distribution_network,
    actor_distribution_rnn_network,
    value_network,
    value_rnn_network,
)
from tf_agents.specs import BoundedTensorSpec
from tf_agents.trajectories import StepType

from tfdrl.errors import ConfigurationError
from tfdrl.networks.actor_critic_adapters import KerasActorCriticNetwork, SeparateActorCriticNetwork
from tfdrl.networks.actor_critic_networks import check_distribution

VECTOR = tf.TensorSpec([4], tf.float32)
DISCRETE = BoundedTensorSpec([], tf.int32, 0, 2)
CONTINUOUS = BoundedTensorSpec([2], tf.float32, -1.0, 1.0)


def linear_model(spec, parameters, value_shape=(1,)):
    observation = tf.keras.Input(spec.shape)
    policy = tf.keras.layers.Dense(parameters, name="policy")(observation)
    value = tf.keras.layers.Dense(1, name="value")(observation)
    return tf.keras.Model(observation, (policy, tf.keras.layers.Reshape(value_shape)(value)))


def weights(network, layer):
    return [v for v in network.trainable_weights if f"{layer}/" in v.name]


@pytest.mark.parametrize("value_shape", [(), (1,)])
def test_a_model_with_logits(value_shape):
    network = KerasActorCriticNetwork(
        VECTOR, DISCRETE, model=functools.partial(linear_model, value_shape=value_shape)
    )
    check_distribution(network, DISCRETE)
    assert network.state_spec == ()
    kernel, bias = weights(network, "policy")
    value_kernel, value_bias = weights(network, "value")
    x = tf.random.normal([5, 3, 4])
    (distribution, value), state = network(x)
    np.testing.assert_allclose(
        distribution.logits, np.tensordot(x, kernel, 1) + bias, rtol=1e-4, atol=1e-5
    )
    expected = (np.tensordot(x, value_kernel, 1) + value_bias)[..., 0]
    np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-5)
    (_, step_value), _ = network(x[:, 1])
    np.testing.assert_allclose(step_value, value[:, 1], rtol=1e-4, atol=1e-5)
    assert state == ()


def test_a_model_with_means_and_deviations():
    network = KerasActorCriticNetwork(VECTOR, CONTINUOUS, model=linear_model)
    check_distribution(network, CONTINUOUS)
    x = tf.random.normal([5, 3, 4])
    (distribution, _), _ = network(x)
    kernel, bias = weights(network, "policy")
    parameters = np.tensordot(x, kernel, 1) + bias
    np.testing.assert_allclose(distribution.mean(), parameters[..., :2], rtol=1e-4, atol=1e-5)
    std = np.log1p(np.exp(parameters[..., 2:]))
    np.testing.assert_allclose(distribution.stddev(), std, rtol=1e-4, atol=1e-5)


def test_a_model_of_several_inputs_sees_the_training_flag():
    spec = {"a": VECTOR, "b": tf.TensorSpec([], tf.float32)}

    def model(spec, parameters):
        inputs = {name: tf.keras.Input(leaf.shape) for name, leaf in spec.items()}
        features = tf.keras.layers.Dropout(0.5)(inputs["a"])
        value = tf.keras.layers.Dense(1, kernel_initializer="ones")(features)
        logits = tf.keras.layers.Dense(parameters)(features)
        return tf.keras.Model(inputs, (logits, tf.squeeze(value, -1) + inputs["b"]))

    network = KerasActorCriticNetwork(spec, DISCRETE, model=model)
    ones = {"a": tf.ones([10, 5, 4]), "b": tf.ones([10, 5])}
    np.testing.assert_allclose(network(ones)[0][1], np.full([10, 5], 5.0))
    assert np.std(network(ones, training=True)[0][1]) > 0.1


@pytest.mark.parametrize(
    ("make", "action", "message"),
    [
        (lambda s, p: linear_model(s, p + 1), DISCRETE, r"3 parameters .*\[2, 4\], \[2, 1\]"),
        (lambda s, p: linear_model(s, 2), CONTINUOUS, r"4 parameters .*\[2, 2\], \[2, 1\]"),
        (lambda s, p: linear_model(s, p, (1, 1)), DISCRETE, r"\[2, 3\], \[2, 1, 1\]"),
        (
            lambda s, p: tf.keras.Sequential([tf.keras.layers.Dense(p)]),
            DISCRETE,
            r"must return a pair.*returned \[2, 3\]",
        ),
    ],
)
def test_models_with_other_outputs(make, action, message):
    with pytest.raises(ConfigurationError, match=f"(?s)KerasActorCriticNetwork.model .*{message}"):
        KerasActorCriticNetwork(VECTOR, action, model=make)


@pytest.mark.parametrize("action", [BoundedTensorSpec([2], tf.int32, 1, 2), (DISCRETE, DISCRETE)])
def test_keras_models_for_unsupported_actions(action):
    with pytest.raises(ConfigurationError, match="supports discrete actions"):
        KerasActorCriticNetwork(VECTOR, action, model=linear_model)


ACTORS = {
    "": actor_distribution_network.ActorDistributionNetwork,
    "rnn": functools.partial(
        actor_distribution_rnn_network.ActorDistributionRnnNetwork, lstm_size=(5,)
    ),
}
CRITICS = {"": value_network.ValueNetwork, "rnn": value_rnn_network.ValueRnnNetwork}


@pytest.mark.parametrize("action", [DISCRETE, CONTINUOUS])
@pytest.mark.parametrize("critic", CRITICS)
@pytest.mark.parametrize("actor", ACTORS)
def test_tf_agents_networks(actor, critic, action):
    network = SeparateActorCriticNetwork(
        VECTOR, action, actor=ACTORS[actor], critic=CRITICS[critic]
    )
    network.create_variables()
    check_distribution(network, action)
    assert len(tf.nest.flatten(network.state_spec)) == 2 * bool(actor) + 2 * bool(critic)
    x, step_type = tf.random.normal([3, 4, 4]), np.full([3, 4], StepType.MID)
    step_type[1, 2] = StepType.FIRST
    state = network.get_initial_state(3)
    (_, value), last_state = network(x, step_type, state)
    for t in range(4):
        (distribution, step_value), state = network(x[:, t], step_type[:, t], state)
        np.testing.assert_allclose(step_value, value[:, t], rtol=1e-4, atol=1e-5)
        assert distribution.log_prob(tf.zeros([3, *action.shape], action.dtype)).shape == [3]
    tf.nest.map_structure(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), state, last_state
    )


def test_a_network_without_state_has_none():
    network = SeparateActorCriticNetwork(VECTOR, DISCRETE, actor=ACTORS[""], critic=CRITICS[""])
    assert network.state_spec == () == network.get_initial_state(3)
    assert network(tf.zeros([3, 4]))[1] == ()


def test_several_inputs_by_a_combiner():
    spec = {"a": VECTOR, "b": tf.TensorSpec([3], tf.float32)}

    def join():
        return tf.keras.layers.Lambda(lambda x: tf.concat([x["a"], x["b"]], axis=-1))

    network = SeparateActorCriticNetwork(
        spec,
        DISCRETE,
        actor=lambda i, a: ACTORS["rnn"](i, a, preprocessing_combiner=join()),
        critic=lambda i: CRITICS[""](i, preprocessing_combiner=join()),
    )
    check_distribution(network, DISCRETE)
