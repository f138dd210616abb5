"""Actor-critic networks: parameter counts by hand, what they see, and what they refuse."""

from typing import Any, NamedTuple

import numpy as np
import preloaded
import pytest
import tensorflow as tf
from tf_agents.specs import BoundedTensorSpec
from tf_agents.trajectories import StepType

from tfdrl.errors import ConfigurationError
from tfdrl.networks.actor_critic_networks import (
    DeepActorCriticNetwork,
    MlpActorCriticNetwork,
    NatureActorCriticNetwork,
    ShallowActorCriticNetwork,
)

VECTOR = tf.TensorSpec([3], tf.float32)
IMAGE = tf.TensorSpec([84, 84, 4], tf.uint8)
CONTINUOUS = BoundedTensorSpec([2], tf.float32, -1.0, 1.0)


class Input(NamedTuple):
    observation: Any
    last_action: Any
    last_reward: Any


def discrete(actions):
    return BoundedTensorSpec([], tf.int32, 0, actions - 1)


def with_last(observation, actions):
    return Input(observation, tf.TensorSpec([actions], tf.float32), tf.TensorSpec([], tf.float32))


def random_input(spec, outer, seed=0):
    random = np.random.default_rng(seed)

    def draw(leaf):
        if leaf.dtype.is_integer:
            return tf.constant(random.integers(0, 256, [*outer, *leaf.shape]), leaf.dtype)
        return tf.constant(random.normal(size=[*outer, *leaf.shape]), leaf.dtype)

    return tf.nest.map_structure(draw, spec)


def parameters(network):
    network.create_variables()
    return sum(int(tf.size(v)) for v in network.trainable_variables)


@pytest.mark.parametrize("separate", [False, True])
def test_mlp_parameters(separate):
    spec = {"a": tf.TensorSpec([2, 3], tf.float32), "b": tf.TensorSpec([4], tf.uint8)}
    network = MlpActorCriticNetwork(spec, discrete(6), (32, 16), separate_critic=separate)
    torso = (10 + 1) * 32 + (32 + 1) * 16
    assert parameters(network) == torso * (1 + separate) + (16 + 1) * 6 + (16 + 1)


@pytest.mark.parametrize("separate", [False, True])
def test_mlp_lstm_parameters(separate):
    network = MlpActorCriticNetwork(
        VECTOR, CONTINUOUS, (32,), lstm_units=8, separate_critic=separate
    )
    branch = (3 + 1) * 32 + 4 * 8 * (32 + 8 + 1)
    assert parameters(network) == branch * (1 + separate) + (8 + 1) * 2 + 2 + (8 + 1)


def test_a_separate_critic_shares_nothing():
    network = MlpActorCriticNetwork(VECTOR, discrete(3), (8,), separate_critic=True)
    network.create_variables()
    with tf.GradientTape() as tape:
        (_, value), _ = network(random_input(VECTOR, [4]))
    gradients = tape.gradient(value, network.trainable_variables)
    of_value = [v.name for v, g in zip(network.trainable_variables, gradients) if g is not None]
    assert len(of_value) == 4
    assert all("/critic/" in name or "/value/" in name for name in of_value)


CONVOLUTIONS = (8 * 8 * 4 + 1) * 32 + (4 * 4 * 32 + 1) * 64 + (3 * 3 * 64 + 1) * 64


def test_nature_parameters():
    """84 -> 20 -> 9 -> 7, so that 7 * 7 * 64 = 3136 features reach the dense layer."""
    network = NatureActorCriticNetwork(IMAGE, discrete(6))
    assert parameters(network) == CONVOLUTIONS + 3137 * 512 + 513 * 6 + 513


def test_what_is_no_image_joins_before_the_lstm():
    network = NatureActorCriticNetwork(with_last(IMAGE, 6), discrete(6), 256, dense_units=100)
    lstm = 4 * 256 * (100 + 6 + 1 + 256 + 1)
    assert parameters(network) == CONVOLUTIONS + 3137 * 100 + lstm + 257 * 6 + 257


def test_shallow_parameters():
    """The paper's input of 72x96 RGB: 72 -> 17 -> 7 and 96 -> 23 -> 10; 1.2 million with all."""
    spec = with_last(tf.TensorSpec([72, 96, 3], tf.uint8), 9)
    network = ShallowActorCriticNetwork(spec, discrete(9), lstm_units=256)
    count = (8 * 8 * 3 + 1) * 16 + (4 * 4 * 16 + 1) * 32 + (7 * 10 * 32 + 1) * 256
    count += 4 * 256 * (256 + 9 + 1 + 256 + 1)
    assert parameters(network) == count + 257 * 9 + 257
    assert 1.0e6 < parameters(network) < 1.2e6  # the paper's has an LSTM for instructions, too


def test_deep_parameters():
    """15 convolutions; 72x96 is halved thrice: 9 * 12 * 32 features; 1.6 million with all."""
    spec = with_last(tf.TensorSpec([72, 96, 3], tf.uint8), 9)
    network = DeepActorCriticNetwork(spec, discrete(9), lstm_units=256)

    def stage(inputs, filters):
        return (9 * inputs + 1) * filters + 4 * (9 * filters + 1) * filters

    count = stage(3, 16) + stage(16, 32) + stage(32, 32) + (9 * 12 * 32 + 1) * 256
    count += 4 * 256 * (256 + 9 + 1 + 256 + 1)
    assert parameters(network) == count + 257 * 9 + 257
    assert 1.5e6 < parameters(network) < 1.7e6
    kernels = [v for v in network.trainable_variables if v.shape.rank == 4]
    assert len(kernels) == 15


def test_the_deep_network_adds_what_its_blocks_take():
    """With the blocks' weights at zero only the stages' convolutions and poolings remain."""
    spec = tf.TensorSpec([9, 9, 2], tf.float32)
    network = DeepActorCriticNetwork(spec, discrete(2), channels=(2,), dense_units=4)
    network.create_variables()
    tower = network._torsos[0]._layers[:-2]
    for variable in network.trainable_variables:
        if "block" in variable.name:
            variable.assign(tf.zeros_like(variable))
    image = random_input(spec, [3])
    features = image
    for layer in tower:
        features = layer(features)
    kernel, bias = tower[0].trainable_variables
    expected = tf.nn.max_pool2d(tf.nn.conv2d(image, kernel, 1, "SAME") + bias, 3, 2, "SAME")
    np.testing.assert_allclose(features, tf.nn.relu(expected), rtol=1e-5, atol=1e-6)


def test_bytes_are_divided_by_255_and_floats_are_not():
    as_bytes = tf.TensorSpec([20, 20, 1], tf.uint8)
    as_floats = tf.TensorSpec([20, 20, 1], tf.float32)
    left, right = (ShallowActorCriticNetwork(s, discrete(2)) for s in (as_bytes, as_floats))
    parameters(left), parameters(right)
    for a, b in zip(left.variables, right.variables):
        b.assign(a)
    image = random_input(as_bytes, [3])
    (_, expected), _ = right(tf.cast(image, tf.float32) / 255.0)
    np.testing.assert_allclose(left(image)[0][1], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("factory", "observation"),
    [(MlpActorCriticNetwork, VECTOR), (ShallowActorCriticNetwork, tf.TensorSpec([20, 20, 1]))],
)
@pytest.mark.parametrize("lstm_units", [None, 4])
def test_every_part_of_the_input_counts(factory, observation, lstm_units):
    tf.keras.utils.set_random_seed(3)  # of some initial weights a part counts too little
    spec = with_last(observation, 3)
    network = factory(spec, discrete(3), lstm_units=lstm_units)
    given, step_type = random_input(spec, [1]), tf.fill([1], StepType.MID)
    state = network.get_initial_state(1)
    (_, value), _ = network(given, step_type, state)
    for name in Input._fields:
        other = given._replace(**{name: getattr(given, name) + 1})
        assert np.abs(network(other, step_type, state)[0][1] - value) > 1e-4, name


@pytest.mark.parametrize(
    ("factory", "size"),
    [
        (NatureActorCriticNetwork, 36),
        (ShallowActorCriticNetwork, 20),
        (DeepActorCriticNetwork, 1),
    ],
)
def test_the_smallest_image(factory, size):
    spec = tf.TensorSpec([size, 50, 1], tf.uint8)
    assert factory(spec, discrete(2))(random_input(spec, [2]))[0][1].shape == [2]
    if size > 1:
        small = tf.TensorSpec([size - 1, 50, 1], tf.uint8)
        with pytest.raises(ConfigurationError, match=f"at least {size}x{size}"):
            factory(small, discrete(2))


IMAGE_NETWORKS = [NatureActorCriticNetwork, ShallowActorCriticNetwork, DeepActorCriticNetwork]


@pytest.mark.parametrize("factory", IMAGE_NETWORKS)
@pytest.mark.parametrize("spec", [VECTOR, {"a": IMAGE, "b": IMAGE}])
def test_exactly_one_image(factory, spec):
    message = rf"(?s){factory.__name__} needs exactly one image.*MlpActorCriticNetwork"
    with pytest.raises(ConfigurationError, match=message):
        factory(spec, discrete(2))


def test_only_batches_and_batches_of_sequences():
    network = MlpActorCriticNetwork(VECTOR, discrete(2))
    for outer in ([], [2, 3, 4]):
        with pytest.raises(ValueError, match=r"\[B, \.\.\.\] or \[B, T, \.\.\.\]"):
            network(random_input(VECTOR, outer))


@pytest.mark.parametrize("factory", [MlpActorCriticNetwork, ShallowActorCriticNetwork])
@pytest.mark.parametrize("action", [discrete(3), CONTINUOUS])
def test_equal_variables_in_every_process(factory, action):
    def variables():
        tf.keras.utils.set_random_seed(7)
        observation = VECTOR if factory is MlpActorCriticNetwork else IMAGE
        network = factory(with_last(observation, 3), action, lstm_units=4)
        network.create_variables()
        return network.trainable_weights

    left, right = variables(), variables()
    assert [v.name for v in left] == [v.name for v in right]
    for a, b in zip(left, right):
        np.testing.assert_array_equal(a, b)


def run_under_a_strategy():
    """Run by the test below where two logical devices can still be made."""
    devices = [tf.config.LogicalDeviceConfiguration()] * 2
    tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], devices)
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        network = MlpActorCriticNetwork(VECTOR, CONTINUOUS, lstm_units=4)
        network.create_variables()
    arguments = random_input(VECTOR, [2, 3]), tf.zeros([2, 3], tf.int32)
    state = network.get_initial_state(2)

    @tf.function
    def value():
        return strategy.run(lambda: network(*arguments, state)[0][1])

    for result in strategy.experimental_local_results(value()):
        np.testing.assert_allclose(result, network(*arguments, state)[0][1], rtol=1e-5, atol=1e-6)
    assert all(len(v.values) == 2 for v in network.trainable_weights)
    print("replicas agree")


def test_under_a_strategy():
    output = preloaded.call("test_actor_critic_networks:run_under_a_strategy", __file__)
    assert "replicas agree" in output, output[-3000:]
