"""The one rule by which networks see observations: what is one-hot, what is scaled, what stays."""

import copy
import functools

import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces as gym_spaces
from tf_agents.networks import q_network
from tf_agents.networks.actor_distribution_network import ActorDistributionNetwork
from tf_agents.specs import BoundedTensorSpec

from tfdrl import environments_tf
from tfdrl.agents.actor_critic_policy import input_spec
from tfdrl.environments import spaces
from tfdrl.errors import ConfigurationError
from tfdrl.networks import observations
from tfdrl.networks.actor_critic_networks import MlpActorCriticNetwork
from tfdrl.networks.continuous_networks import mlp_actor, mlp_critic, mlp_value
from tfdrl.networks.q_networks import MlpQNetwork, NatureQNetwork
from tfdrl.networks.recurrent_q_networks import MlpRecurrentQNetwork
from tfdrl.networks.vector_networks import on_vector

ACTION = BoundedTensorSpec([], tf.int32, 0, 2)
CONTINUOUS = BoundedTensorSpec([2], tf.float32, -1.0, 1.0)
ROOM = gym_spaces.Discrete(4, start=-1)
ALL = gym_spaces.Dict(
    room=ROOM,
    hand=gym_spaces.MultiDiscrete([[2, 3], [1, 2]], start=[[0, 5], [0, 0]]),
    keys=gym_spaces.MultiBinary(3),
    ram=gym_spaces.Box(0, 255, (2,), np.uint8),
    screen=gym_spaces.Box(0, 255, (1, 2, 1), np.uint8),
    mask=gym_spaces.Box(0, 1, (1, 2, 1), bool),
    speed=gym_spaces.Box(-9, 9, (), np.int8),
)
SIZE = 4 + 8 + 3 + 2 + 2 + 2 + 1


def tfa_network(kind):
    return functools.partial(kind, fc_layer_params=(8,))


def specs_of(space):
    return environments_tf.to_tf_specs(spaces.observation_spec(space))


def one_of(space, value):
    """A batch of one observation."""
    batch = {key: np.asarray(part)[None] for key, part in value.items()}
    return spaces.to_observation(spaces.observation_spec(space), batch)


def test_each_kind_of_observation_by_hand():
    value = {
        "room": 1,
        "hand": [[1, 7], [0, 0]],
        "keys": [1, 0, 1],
        "ram": [200, 3],
        "screen": [[[255], [51]]],
        "mask": [[[True], [False]]],
        "speed": -4,
    }
    vector = observations.as_vector(one_of(ALL, value), specs_of(ALL))
    expected = {  # in the order of the keys
        "hand": [0, 1, 0, 0, 1, 1, 1, 0],
        "keys": [1, 0, 1],
        "mask": [1, 0],
        "ram": [200, 3],
        "room": [0, 0, 1, 0],
        "screen": [1, 0.2],
        "speed": [-4],
    }
    assert vector.dtype == tf.float32
    np.testing.assert_allclose(vector, [np.concatenate(list(expected.values()))])
    assert observations.vector_size(specs_of(ALL)) == vector.shape[1] == SIZE


def test_one_hot_of_sequences_and_of_what_is_out_of_bounds():
    spec = specs_of(gym_spaces.MultiDiscrete([2, 3], start=[0, 4]))
    values = tf.constant([[[0, 4], [1, 6]], [[2, 3], [-1, 5]]], tf.int64)
    expected = [[[1, 0, 1, 0, 0], [0, 1, 0, 0, 1]], [[0, 0, 0, 0, 0], [0, 0, 0, 1, 0]]]
    np.testing.assert_array_equal(observations.one_hot(values, spec), expected)


@pytest.mark.parametrize(
    "network",
    [
        lambda spec: MlpQNetwork(spec, ACTION, layer_units=(8,)),
        lambda spec: MlpRecurrentQNetwork(spec, ACTION, layer_units=(8,), lstm_units=None),
        lambda spec: MlpActorCriticNetwork(spec, ACTION, layer_units=(8,)),
        lambda spec: mlp_value(spec, layer_units=(8,)),
        lambda spec: mlp_actor(spec, CONTINUOUS, layer_units=(8,)),
        lambda spec: mlp_critic(spec, CONTINUOUS, observation_layer_units=(8,)),
        lambda spec: on_vector(spec, ACTION, tfa_network(q_network.QNetwork)),
        lambda spec: on_vector(spec, CONTINUOUS, tfa_network(ActorDistributionNetwork)),
    ],
    ids=["Q", "recurrent Q", "actor-critic", "value", "actor", "critic", "QNetwork", "policy"],
)
@pytest.mark.parametrize(("space", "size"), [(ROOM, 4), (ALL, SIZE)], ids=["Discrete", "Dict"])
def test_all_networks_see_the_same_vector(network, space, size):
    built = network(specs_of(space))
    built.create_variables()
    assert built.trainable_variables[0].shape == [size, 8]


def test_one_vector_in_a_dict_comes_as_a_dict():
    spec, batch = {"place": tf.TensorSpec([3])}, {"place": tf.zeros([5, 3])}
    assert mlp_actor(spec, CONTINUOUS)(batch)[0].shape == [5, 2]
    assert mlp_value(spec)(batch)[0].shape == [5]
    assert mlp_critic(spec, CONTINUOUS)((batch, tf.zeros([5, 2])))[0].shape == [5]


def test_values_of_sequences():
    batch = {key: tf.zeros([2, 5, *s.shape], s.dtype) for key, s in specs_of(ALL).items()}
    value, _ = mlp_value(specs_of(ALL))(batch, step_type=tf.ones([2, 5], tf.int32))
    assert value.shape == [2, 5]


def test_states_beside_last_action_and_reward():
    network = MlpRecurrentQNetwork(input_spec(specs_of(ROOM), ACTION, True), ACTION, (8,))
    network.create_variables()
    assert network.trainable_variables[0].shape == [4 + 3 + 1, 8]


def test_rooms_are_told_apart_by_more_than_their_number():
    """Without a hidden layer, a linear function of the number could not be 0, 1, 0, 1."""
    network = MlpQNetwork(specs_of(ROOM), ACTION, layer_units=())
    q, _ = network(tf.constant([-1, 0, 1, 2], tf.int64))
    kernel, bias = network.trainable_variables
    kernel.assign(tf.random.stateless_normal(kernel.shape, [1, 2]))
    q, _ = network(tf.constant([-1, 0, 1, 2], tf.int64))
    np.testing.assert_allclose(q, kernel + bias, rtol=1e-6)


def test_a_category_of_three_dimensions_is_no_image():
    spec = specs_of(gym_spaces.MultiDiscrete(np.full((40, 40, 1), 3)))
    with pytest.raises(ConfigurationError, match="needs one image"):
        NatureQNetwork(spec, ACTION)


def test_too_many_categories_are_refused_with_the_cure():
    with pytest.raises(ConfigurationError, match=r"observation has 1000000 categories.*Embedding"):
        MlpQNetwork(specs_of(gym_spaces.Discrete(10**6)), ACTION).create_variables()


def test_the_spec_stays_categorical_when_copied():
    assert observations.is_categorical(copy.deepcopy(specs_of(ROOM)))
