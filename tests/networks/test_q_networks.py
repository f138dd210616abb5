"""Q-networks: shapes, parameter counts by hand, the dueling heads, and what is refused."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import BoundedTensorSpec

from tfdrl.errors import ConfigurationError
from tfdrl.networks.actor_critic_networks import MlpActorCriticNetwork, NatureActorCriticNetwork
from tfdrl.networks.q_networks import KerasQNetwork, MlpQNetwork, NatureQNetwork, num_actions

VECTOR = tf.TensorSpec([3], tf.float32)
IMAGE = tf.TensorSpec([84, 84, 4], tf.uint8)


def discrete(actions):
    return BoundedTensorSpec([], tf.int32, 0, actions - 1)


def built(network, observation, batch=5):
    """Q-values of zeros, and the number of parameters."""
    zeros = tf.nest.map_structure(
        lambda spec: tf.zeros([batch, *spec.shape], spec.dtype), observation
    )
    q, state = network(zeros)
    assert state == ()
    return q, sum(int(tf.size(v)) for v in network.trainable_variables)


def test_mlp_takes_a_dict_of_anything():
    spec = {
        "position": tf.TensorSpec([2, 3], tf.float32),
        "image": tf.TensorSpec([4, 4, 1], tf.uint8),
        "room": BoundedTensorSpec([], tf.int32, 0, 9),
    }
    network = MlpQNetwork(spec, discrete(4), layer_units=(8,))
    q, parameters = built(network, spec)
    inputs = 6 + 16 + 1
    assert q.shape == [5, 4] and q.dtype == tf.float32
    assert parameters == (inputs + 1) * 8 + (8 + 1) * 4


def test_every_part_of_a_dict_observation_counts():
    spec = {"a": VECTOR, "b": VECTOR}
    network = MlpQNetwork(spec, discrete(2), layer_units=())
    zeros = {"a": tf.zeros([1, 3]), "b": tf.zeros([1, 3])}
    q, _ = network(zeros)
    for name in spec:
        other, _ = network({**zeros, name: tf.ones([1, 3])})
        assert np.abs(other - q).max() > 0.01


@pytest.mark.parametrize(
    ("dueling", "head_units", "heads"),
    [
        (False, None, (16 + 1) * 6),
        (True, None, (16 + 1) * 6 + (16 + 1)),
        (False, 10, (16 + 1) * 10 + (10 + 1) * 6),
        (True, 10, 2 * (16 + 1) * 10 + (10 + 1) * 6 + (10 + 1)),
    ],
)
def test_mlp_parameters(dueling, head_units, heads):
    network = MlpQNetwork(VECTOR, discrete(6), (32, 16), head_units, dueling)
    q, parameters = built(network, VECTOR)
    assert q.shape == [5, 6]
    assert parameters == (3 + 1) * 32 + (32 + 1) * 16 + heads


CONVOLUTIONS = (8 * 8 * 4 + 1) * 32 + (4 * 4 * 32 + 1) * 64 + (3 * 3 * 64 + 1) * 64


@pytest.mark.parametrize(
    ("dueling", "heads"),
    [
        (False, (3136 + 1) * 512 + (512 + 1) * 18),
        (True, 2 * (3136 + 1) * 512 + (512 + 1) * 18 + (512 + 1)),
    ],
)
def test_nature_parameters(dueling, heads):
    """84 -> 20 -> 9 -> 7, so that 7 * 7 * 64 = 3136 features reach the head (Mnih 2015)."""
    network = NatureQNetwork(IMAGE, discrete(18), dueling=dueling)
    q, parameters = built(network, IMAGE, batch=2)
    assert q.shape == [2, 18]
    assert parameters == CONVOLUTIONS + heads


def test_nature_scales_bytes_to_one():
    network = NatureQNetwork(IMAGE, discrete(2))
    white = tf.fill([1, 84, 84, 4], tf.constant(255, tf.uint8))
    np.testing.assert_array_equal(network.preprocess(white), np.ones([1, 84, 84, 4]))


def test_dueling_values_are_value_plus_centred_advantage():
    network = MlpQNetwork(VECTOR, discrete(3), layer_units=(), dueling=True)
    observation = np.array([[1, 0, 0], [0, 2, 0]], np.float32)
    network(observation)
    named = {v.name.split("/", 1)[-1]: v for v in network.trainable_variables}
    find = lambda part: next(v for n, v in named.items() if part in n)  # noqa: E731
    random = np.random.default_rng(0)
    advantage, value = random.normal(size=(3, 3)), random.normal(size=(3, 1))
    find("advantage/kernel").assign(advantage)
    find("value/kernel").assign(value)
    find("value/bias").assign([10.0])
    a = observation @ advantage
    expected = observation @ value + 10 + a - a.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(network(observation)[0], expected, rtol=1e-5, atol=1e-5)


def test_a_network_without_dueling_has_no_value_head():
    network = MlpQNetwork(VECTOR, discrete(3), layer_units=(4,))
    built(network, VECTOR)
    assert not any("value" in v.name for v in network.variables)


def test_keras_models_are_made_anew_for_each_network():
    made = []

    def model(spec, actions):
        made.append((spec, actions))
        return tf.keras.Sequential([tf.keras.Input(spec.shape), tf.keras.layers.Dense(actions)])

    online, target = (KerasQNetwork(VECTOR, discrete(2), model=model) for _ in range(2))
    ones = tf.ones([4, 3])
    before = target(ones)[0].numpy()
    assert made == [(VECTOR, 2)] * 2
    assert online(ones)[0].shape == [4, 2]
    assert len(online.trainable_variables) == 2
    for variable in online.variables:
        variable.assign(variable + 1.0)
    np.testing.assert_array_equal(target(ones)[0], before)
    assert np.abs(online(ones)[0] - before).max() > 1


def test_keras_layers_see_the_training_flag():
    def model(spec, actions):
        layers = [tf.keras.layers.Dense(actions, kernel_initializer="ones")]
        return tf.keras.Sequential([*layers, tf.keras.layers.Dropout(0.5)])

    network = KerasQNetwork(VECTOR, discrete(50), model=model)
    ones = tf.ones([20, 3])
    np.testing.assert_array_equal(network(ones)[0], np.full([20, 50], 3.0))
    assert (network(ones, training=True)[0].numpy() == 0).mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize(
    "observation",
    [VECTOR, {"a": IMAGE, "b": IMAGE}, tf.TensorSpec([35, 84, 4], tf.uint8)],
)
def test_nature_refuses_what_is_not_one_image(observation):
    with pytest.raises(
        ConfigurationError, match=r"(?s)NatureQNetwork needs one image.*MlpQNetwork"
    ):
        NatureQNetwork(observation, discrete(2))


def test_nature_takes_the_smallest_image_it_promises():
    spec = tf.TensorSpec([36, 36, 1], tf.uint8)
    q, _ = built(NatureQNetwork(spec, discrete(2)), spec)
    assert q.shape == [5, 2]


@pytest.mark.parametrize(
    "action",
    [
        BoundedTensorSpec([], tf.float32, -1.0, 1.0),
        BoundedTensorSpec([2], tf.int32, 0, 1),
        (discrete(2), discrete(2)),
    ],
)
@pytest.mark.parametrize("network", [MlpQNetwork, KerasQNetwork])
def test_only_one_discrete_action(network, action):
    kwargs = {"model": lambda *_: None} if network is KerasQNetwork else {}
    with pytest.raises(ConfigurationError, match=r"one discrete action.*VTraceAgent, NStepActorC"):
        network(VECTOR, action, **kwargs)


def test_num_actions_counts_from_the_minimum():
    assert num_actions(discrete(6)) == 6
    assert num_actions({"move": BoundedTensorSpec([], tf.int64, 2, 4)}) == 3


@pytest.mark.parametrize(
    "make",
    [
        NatureQNetwork,
        functools.partial(MlpQNetwork, layer_units=(8,)),
        NatureActorCriticNetwork,
        functools.partial(MlpActorCriticNetwork, layer_units=(8,)),
    ],
    ids=["Nature", "MLP", "Nature, actor-critic", "MLP, actor-critic"],
)
def test_images_of_bytes_and_of_floats_are_the_same(make):
    """One rule for all: uint8 is divided by 255, floats are as they are."""
    image = np.random.default_rng(1).integers(0, 256, (2, 84, 84, 1), np.uint8)
    found = []
    for pixels in (image, (image / 255.0).astype(np.float32)):
        tf.keras.utils.set_random_seed(1)
        network = make(tf.TensorSpec(pixels.shape[1:], pixels.dtype), discrete(3))
        values, _ = network(tf.constant(pixels))
        leaves = [values] if tf.is_tensor(values) else [values[0].logits, values[1]]
        found.append(np.concatenate([np.reshape(leaf, -1) for leaf in leaves]))
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)
    assert np.abs(found[0]).max() > 1e-3
