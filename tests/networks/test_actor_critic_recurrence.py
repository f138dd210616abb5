"""Recurrent actor-critic networks: sequences equal steps, episodes do not leak, state is needed."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.networks import actor_distribution_rnn_network, value_rnn_network
from tf_agents.specs import BoundedTensorSpec
from tf_agents.trajectories import StepType

from tfdrl.errors import ConfigurationError
from tfdrl.networks.actor_critic_adapters import SeparateActorCriticNetwork
from tfdrl.networks.actor_critic_networks import (
    DeepActorCriticNetwork,
    MlpActorCriticNetwork,
    ShallowActorCriticNetwork,
)

FIRST, MID, LAST = StepType.FIRST, StepType.MID, StepType.LAST
VECTOR = tf.TensorSpec([3], tf.float32)
IMAGE = tf.TensorSpec([20, 20, 1], tf.float32)
DISCRETE = BoundedTensorSpec([], tf.int32, 0, 3)
ARRAY = BoundedTensorSpec([2], tf.int32, 0, [1, 2])
CONTINUOUS = BoundedTensorSpec([2], tf.float32, -1.0, 1.0)

# An episode goes on, one starts inside, one at the first index, one at the last.
STEP_TYPES = tf.constant(
    [
        [MID, MID, MID, MID, MID],
        [MID, LAST, FIRST, MID, MID],
        [FIRST, MID, LAST, FIRST, MID],
        [MID, MID, MID, LAST, FIRST],
    ]
)
B, T = STEP_TYPES.shape


def rnn_pair(input_spec, action_spec):
    return SeparateActorCriticNetwork(
        input_spec,
        action_spec,
        actor=functools.partial(
            actor_distribution_rnn_network.ActorDistributionRnnNetwork,
            input_fc_layer_params=(8,),
            lstm_size=(5,),
            output_fc_layer_params=None,
        ),
        critic=functools.partial(
            value_rnn_network.ValueRnnNetwork,
            input_fc_layer_params=(8,),
            lstm_size=(4, 3),
            output_fc_layer_params=(6,),
        ),
    )


CASES = {
    "mlp": (functools.partial(MlpActorCriticNetwork, layer_units=(8,), lstm_units=6), VECTOR),
    "separate": (
        functools.partial(MlpActorCriticNetwork, lstm_units=6, separate_critic=True),
        VECTOR,
    ),
    "shallow": (functools.partial(ShallowActorCriticNetwork, lstm_units=6), IMAGE),
    "deep": (functools.partial(DeepActorCriticNetwork, lstm_units=6, channels=(4,)), IMAGE),
    "tf_agents": (rnn_pair, VECTOR),
}


@pytest.fixture(name="case", params=CASES)
def make_case(request):
    """A network, an input of [B, T, ...] and a state that is not zero."""
    tf.keras.utils.set_random_seed(0)
    factory, spec = CASES[request.param]
    network = factory(spec, CONTINUOUS)
    network.create_variables()
    observation = tf.random.normal([B, T, *spec.shape])
    state = tf.nest.map_structure(
        lambda leaf: tf.random.normal([B, *leaf.shape]), network.state_spec
    )
    return network, observation, state


def test_a_sequence_equals_its_steps(case):
    network, observation, state = case
    (distribution, value), last_state = network(observation, STEP_TYPES, state)
    mean = distribution.mean()
    assert value.shape == [B, T] and mean.shape == [B, T, 2]
    for t in range(T):
        (pi, v), state = network(observation[:, t], STEP_TYPES[:, t], state)
        np.testing.assert_allclose(v, value[:, t], rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(pi.mean(), mean[:, t], rtol=1e-4, atol=1e-6)
    tf.nest.map_structure(
        functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), state, last_state
    )


def test_two_halves_with_the_state_carried_equal_the_whole(case):
    network, observation, state = case
    (_, value), last_state = network(observation, STEP_TYPES, state)
    (_, left), middle = network(observation[:, :2], STEP_TYPES[:, :2], state)
    (_, right), end = network(observation[:, 2:], STEP_TYPES[:, 2:], middle)
    np.testing.assert_allclose(tf.concat([left, right], 1), value, rtol=1e-4, atol=1e-6)
    for a, b in zip(tf.nest.flatten(end), tf.nest.flatten(last_state)):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


def test_the_state_before_an_episode_is_forgotten(case):
    network, observation, state = case
    zero = network.get_initial_state(B)
    first = tf.fill([B], FIRST)
    results = [network(observation[:, 0], first, s) for s in (state, zero)]
    for left, right in zip(*(tf.nest.flatten((value, s)) for (_, value), s in results)):
        np.testing.assert_array_equal(left, right)
    (_, with_state), _ = network(observation[:, 0], tf.fill([B], MID), state)
    assert np.abs(with_state - results[0][0][1]).min() > 1e-4


def test_gradient_flows_through_time_but_not_into_the_episode_before(case):
    network, observation, state = case
    with tf.GradientTape() as tape:
        tape.watch((observation, state))
        (distribution, value), _ = network(observation, STEP_TYPES, state)
        # Of the last step only: what it remembers.
        output = value[:, -1] + tf.reduce_sum(distribution.mean()[:, -1], axis=-1)
    by_input, by_state = tape.gradient(output, (observation, state))
    inputs = np.abs(by_input).reshape([B, T, -1]).max(axis=-1)
    states = np.max([np.abs(g).max(axis=-1) for g in tf.nest.flatten(by_state)], axis=0)
    # The step at which the episode of the last step starts; -1: before the sequence.
    starts = [-1, 2, 3, 4]
    for i, start in enumerate(starts):
        np.testing.assert_array_equal(inputs[i, : max(start, 0)], 0.0)
        assert inputs[i, max(start, 0) :].min() > 0
        assert (states[i] == 0) == (start >= 0)


def test_every_weight_learns(case):
    network, observation, state = case
    with tf.GradientTape() as tape:
        (distribution, value), _ = network(observation, STEP_TYPES, state, training=True)
        loss = tf.reduce_sum(value**2) + tf.reduce_sum(distribution.log_prob(tf.ones([B, T, 2])))
    gradients = tape.gradient(loss, network.trainable_weights)
    assert all(g is not None and np.abs(g).max() > 0 for g in gradients)


def test_an_lstm_by_hand():
    """Hochreiter 1997 with forget gates, state zeroed before FIRST, on the input itself."""
    tf.keras.utils.set_random_seed(1)
    network = MlpActorCriticNetwork(VECTOR, DISCRETE, layer_units=(), lstm_units=4)
    network.create_variables()
    kernel, recurrent, bias, _, _, value_kernel, value_bias = (
        v.numpy() for v in network.trainable_weights
    )
    observation = np.random.default_rng(0).normal(size=[B, T, 3]).astype(np.float32)
    h, c = np.random.default_rng(1).normal(size=[2, B, 4]).astype(np.float32)
    (_, value), (last_h, last_c) = network(observation, STEP_TYPES, [h, c])

    def sigmoid(x):
        return 1 / (1 + np.exp(-x))

    for t in range(T):
        goes_on = (STEP_TYPES[:, t] != FIRST).numpy()[:, None]
        h, c = h * goes_on, c * goes_on
        i, f, g, o = np.split(observation[:, t] @ kernel + h @ recurrent + bias, 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        expected = (h @ value_kernel + value_bias)[:, 0]
        np.testing.assert_allclose(value[:, t], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(last_h, h, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(last_c, c, rtol=1e-4, atol=1e-6)


def test_state_specs():
    network = MlpActorCriticNetwork(VECTOR, DISCRETE, lstm_units=6)
    assert [s.shape.as_list() for s in network.state_spec] == [[6], [6]]
    separate = MlpActorCriticNetwork(VECTOR, DISCRETE, lstm_units=6, separate_critic=True)
    assert len(separate.state_spec) == 2 and len(tf.nest.flatten(separate.state_spec)) == 4
    assert [s.shape for s in network.get_initial_state(7)] == [[7, 6], [7, 6]]


def test_without_its_state(case):
    network, observation, state = case
    message = (
        rf"{network.name} is recurrent and needs .*network_state.* but got no tensors.*get_initial"
    )
    for missing in ((), None):
        with pytest.raises(ConfigurationError, match=message):
            network(observation[:, 0], STEP_TYPES[:, 0], missing)
        with pytest.raises(ConfigurationError, match=message):
            network(observation, STEP_TYPES, missing, training=True)
    with pytest.raises(ConfigurationError, match="needs step_type"):
        network(observation, network_state=state)
    part = tf.nest.flatten(state)[:1]
    with pytest.raises(ConfigurationError, match=r"of \[B, \d\] and .*but got 1 tensors"):
        network(observation, STEP_TYPES, part)


@pytest.mark.parametrize("action", [DISCRETE, ARRAY, CONTINUOUS])
@pytest.mark.parametrize("lstm_units", [None, 6])
def test_xla_gives_the_same_numbers(lstm_units, action):
    tf.keras.utils.set_random_seed(0)
    network = MlpActorCriticNetwork(VECTOR, action, (8,), lstm_units=lstm_units)
    network.create_variables()
    observation, state = tf.random.normal([B, T, 3]), network.get_initial_state(B)
    actions = tf.ones([B, T, *action.shape], action.dtype)

    def loss_and_gradients(observation, step_type, state):
        with tf.GradientTape() as tape:
            (distribution, value), _ = network(observation, step_type, state)
            loss = tf.reduce_sum(distribution.log_prob(actions) + value + distribution.entropy())
        return [loss, *tape.gradient(loss, network.trainable_weights)]

    arguments = observation, STEP_TYPES, state
    compiled = tf.function(loss_and_gradients, jit_compile=True)(*arguments)
    for left, right in zip(compiled, loss_and_gradients(*arguments)):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-5)


def test_batch_and_time_may_be_unknown_when_traced():
    network = MlpActorCriticNetwork(VECTOR, CONTINUOUS, lstm_units=6)
    network.create_variables()

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, 3]),
            tf.TensorSpec([None, None], tf.int32),
            [tf.TensorSpec([None, 6]), tf.TensorSpec([None, 6])],
        ]
    )
    def traced(observation, step_type, state):
        (distribution, value), state = network(observation, step_type, state)
        return distribution.mean(), distribution.stddev(), value, state

    observation, state = tf.random.normal([B, T, 3]), list(network.get_initial_state(B))
    mean, std, value, _ = traced(observation, STEP_TYPES, state)
    (distribution, expected), _ = network(observation, STEP_TYPES, state)
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(mean, distribution.mean(), rtol=1e-5, atol=1e-6)
    assert std.shape == [B, T, 2]
