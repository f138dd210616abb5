"""Gymnasium spaces to specs, and values to the environment's own types."""

import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium import spaces as gym_spaces
from tf_agents.specs import tensor_spec

from tfdrl import environments_tf
from tfdrl.environments import spaces
from tfdrl.environments.registry import gym_environment
from tfdrl.errors import ConfigurationError
from tfdrl.types import LAST, ArraySpec


def test_box_bounds_are_a_scalar_where_equal_and_none_where_unbounded():
    pixels = spaces.observation_spec(gym_spaces.Box(0, 255, (84, 84, 4), np.uint8))
    assert pixels == ArraySpec((84, 84, 4), np.uint8, 0, 255, "observation")
    free = spaces.observation_spec(gym_spaces.Box(-np.inf, np.inf, (3,), np.float32))
    assert free == ArraySpec((3,), np.float32, None, None, "observation")


def test_float64_becomes_float32_with_finite_bounds():
    space = gym_spaces.Box(np.array([-1.0, -np.inf]), np.array([1e300, np.inf]), dtype=np.float64)
    spec = spaces.observation_spec(space)
    assert spec.dtype == np.float32 and spec.minimum.dtype == np.float32
    largest = np.finfo(np.float32).max
    np.testing.assert_array_equal(spec.minimum, np.float32([-1.0, -largest]))
    assert spec.maximum == largest


def test_nested_observation_spec():
    space = gym_spaces.Dict(
        image=gym_spaces.Box(0, 255, (8, 8), np.uint8),
        rest=gym_spaces.Tuple(
            (
                gym_spaces.Discrete(3, start=2),
                gym_spaces.MultiDiscrete([2, 5]),
                gym_spaces.MultiBinary(4),
            )
        ),
    )
    spec = spaces.observation_spec(space)
    assert set(spec) == {"image", "rest"} and isinstance(spec["rest"], tuple)
    discrete, multi_discrete, multi_binary = spec["rest"]
    assert (discrete.shape, discrete.minimum, discrete.maximum) == ((), 2, 4)
    np.testing.assert_array_equal(multi_discrete.maximum, [1, 4])
    assert (multi_binary.shape, multi_binary.minimum, multi_binary.maximum) == ((4,), 0, 1)
    assert discrete.name == "observation/rest/0"


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        *(("float16", "float16"), ("float32", "float32"), ("float64", "float32")),
        *(("bool", "uint8"), ("uint8", "uint8"), ("int8", "int32"), ("int16", "int32")),
        *(("uint16", "int32"), ("int32", "int32"), ("uint32", "int64"), ("int64", "int64")),
        ("uint64", "int64"),
    ],
)
@pytest.mark.parametrize("high", [1, [1, 5, 1]])
def test_observations_of_every_type_are_of_one_that_tensorflow_has(dtype, expected, high):
    high = np.array(high, dtype)
    space = gym_spaces.Box(np.zeros(3, dtype), np.broadcast_to(high, 3), dtype=np.dtype(dtype))
    spec = spaces.observation_spec(space)
    assert spec.dtype == expected and spec.minimum == 0 and np.all(spec.maximum == high)
    found = spaces.to_observation(spec, np.array([[0, 1, 1]], dtype))
    assert found.dtype == expected and found.tolist() == [[0, 1, 1]]
    tensors = tensor_spec.sample_spec_nest(environments_tf.to_tf_specs(spec), outer_dims=[4])
    assert tf.cast(tensors, tf.float32).shape == [4, 3]


def test_integers_that_name_something_are_categorical():
    named = (gym_spaces.Discrete(3, dtype=np.int8), gym_spaces.MultiDiscrete([2, 3]))
    counted = (gym_spaces.MultiBinary(2), gym_spaces.Box(0, 9, (2,), int))
    assert [spaces.observation_spec(space).categorical for space in named] == [True, True]
    assert [spaces.observation_spec(space).categorical for space in counted] == [False, False]
    assert spaces.observation_spec(named[0]).dtype == np.int32


def test_a_part_of_a_dict_without_elements_is_left_out():
    state, goal = gym_spaces.Box(-1, 1, (3,)), gym_spaces.Box(-1, 1, (0,))
    spec = spaces.observation_spec(gym_spaces.Dict(state=state, goal=goal))
    assert list(spec) == ["state"]
    both = {"state": np.ones((2, 3), np.float32), "goal": np.ones((2, 0), np.float32)}
    assert list(spaces.to_observation(spec, both)) == ["state"]


@pytest.mark.parametrize(
    ("space", "sentence"),
    [
        (gym_spaces.Box(0, 1, (0,)), "observation: .*has no elements; leave it out"),
        (gym_spaces.Dict(a=gym_spaces.Box(0, 1, (2, 0))), "observation/a: .*no elements"),
        (gym_spaces.Box(0, 2**64 - 1, (1,), np.uint64), "observation: .*int64 has not"),
    ],
)
def test_observations_without_a_value_in_tensorflow_are_refused(space, sentence):
    with pytest.raises(ConfigurationError, match=sentence):
        spaces.observation_spec(space)


@pytest.mark.parametrize(
    ("convert", "space", "where"),
    [
        (spaces.observation_spec, gym_spaces.Text(5), "observation: .*Text"),
        (spaces.observation_spec, gym_spaces.Dict(a=gym_spaces.Text(5)), "observation/a: .*Text"),
        (spaces.action_spec, gym_spaces.MultiBinary(3), "action: .*MultiBinary"),
        (spaces.action_spec, gym_spaces.Box(0, 3, (2,), np.int32), "action: .*int32"),
        (spaces.action_spec, gym_spaces.Dict(a=gym_spaces.Discrete(2)), "action: .*Dict"),
        (spaces.action_spec, gym_spaces.Tuple([gym_spaces.Discrete(2)]), "action: .*Tuple"),
    ],
)
def test_unsupported_space_is_refused_with_what_is_supported(convert, space, where):
    with pytest.raises(ConfigurationError, match=where + r".*not supported; use Box"):
        convert(space)


@pytest.mark.parametrize(
    ("space", "words"),
    [
        (gym_spaces.Box(0, 1, (0,)), "action: .*has no elements"),
        (gym_spaces.Discrete(2**40), "action: .*more values than int32"),
        (gym_spaces.MultiDiscrete([2, 2**40]), "action: .*more values than int32"),
    ],
)
def test_actions_that_nobody_can_take_are_refused(space, words):
    with pytest.raises(ConfigurationError, match=words):
        spaces.action_spec(space)


def test_discrete_actions_start_at_zero():
    assert spaces.action_spec(gym_spaces.Discrete(4, start=-1)).num_values == 4
    to_env = spaces.action_converter(gym_spaces.Discrete(4, start=-1))
    np.testing.assert_array_equal(to_env(np.array([0, 3], np.int32)), [-1, 2])
    multi = gym_spaces.MultiDiscrete([3, 2], start=[5, 0])
    np.testing.assert_array_equal(spaces.action_spec(multi).maximum, [2, 1])
    converted = spaces.action_converter(multi)(np.array([[0, 1], [2, 0]], np.int32))
    np.testing.assert_array_equal(converted, [[5, 1], [7, 0]])
    assert converted.dtype == multi.dtype


class Everything(gymnasium.Env):
    """Every observation space; shows the action it was given, and ends after 3 steps."""

    observation_space = gym_spaces.Dict(
        clock=gym_spaces.Box(0.0, 10.0, (1,), np.float64),
        parts=gym_spaces.Tuple((gym_spaces.Discrete(10), gym_spaces.MultiBinary(2))),
        given=gym_spaces.MultiDiscrete([20, 20]),
    )
    action_space = gym_spaces.MultiDiscrete([2, 3], start=[10, 0])

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.observe([0, 0]), {}

    def step(self, action):
        self.t += 1
        return self.observe(action), 0.1, False, self.t == 3, {}

    def observe(self, action):
        return {
            "clock": np.array([self.t], np.float64),
            "parts": (self.t, np.array([1, 0], np.int8)),
            "given": np.asarray(action),
        }


@pytest.fixture
def everything():
    gymnasium.register("tfdrl_tests/Everything-v0", entry_point=Everything)
    yield gym_environment(2, True, 0, id="tfdrl_tests/Everything-v0")
    del gymnasium.registry["tfdrl_tests/Everything-v0"]


def test_nested_observations_and_shifted_actions_reach_the_environment(everything):
    everything.reset()
    for _ in range(3):
        steps = everything.step(np.array([[1, 2], [0, 1]], np.int32))
    np.testing.assert_array_equal(steps.step_type, [LAST, LAST])
    np.testing.assert_array_equal(steps.discount, [1.0, 1.0])
    assert steps.reward.dtype == np.float32
    assert steps.observation["clock"].dtype == np.float32
    np.testing.assert_array_equal(steps.observation["clock"], [[3.0], [3.0]])
    np.testing.assert_array_equal(steps.observation["parts"][0], [3, 3])
    np.testing.assert_array_equal(steps.observation["parts"][1], [[1, 0], [1, 0]])
    np.testing.assert_array_equal(steps.observation["given"], [[11, 2], [10, 1]])
