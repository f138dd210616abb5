"""Between batched environments and TF-Agents."""

import gin
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.environments import py_environment as tfa_environment
from tf_agents.environments import tf_py_environment, utils
from tf_agents.specs import array_spec, tensor_spec
from tf_agents.trajectories import time_step as ts

from tfdrl.environments import atari_environment, gym_environment
from tfdrl.environments_tf import (
    BatchedPyEnvironment,
    py_environment,
    time_step_spec,
    to_tf_specs,
)
from tfdrl.errors import ConfigurationError
from tfdrl.types import FIRST, LAST, MID, ArraySpec


class Countdown(tfa_environment.PyEnvironment):
    """Counts down from 3; Dict observations in float64; actions 5..7; reward = action."""

    def __init__(self, seed=0, truncates=False):
        super().__init__()
        self.start = seed % 1000
        self.truncates = truncates
        self.left = 0

    def observation_spec(self):
        return {
            "left": array_spec.BoundedArraySpec((), np.int64, 0, 3),
            "start": array_spec.ArraySpec((2,), np.float64),
        }

    def action_spec(self):
        return array_spec.BoundedArraySpec((), np.int64, 5, 7)

    def observe(self):
        return {"left": np.int64(self.left), "start": np.full(2, self.start, np.float64)}

    def _reset(self):
        self.left = 3
        return ts.restart(self.observe())

    def _step(self, action):
        assert 5 <= action <= 7 and self.left > 0
        self.left -= 1
        if self.left:
            return ts.transition(self.observe(), reward=action)
        end = ts.truncation if self.truncates else ts.termination
        return end(self.observe(), reward=action)


def test_py_environment_steps_the_users_class():
    env = py_environment(3, True, seed=1, constructor=Countdown)
    assert env.action_spec.dtype == np.int32
    assert (env.action_spec.minimum, env.action_spec.maximum) == (0, 2)
    assert env.observation_spec["start"].dtype == np.float32
    assert env.observation_spec["left"].categorical and not env.action_spec.categorical
    steps = env.reset()
    np.testing.assert_array_equal(steps.step_type, [FIRST] * 3)
    np.testing.assert_array_equal(steps.observation["left"], [3] * 3)
    starts = steps.observation["start"][:, 0]
    assert len(set(starts)) == 3 and starts.dtype == np.float32  # a seed for each
    rows = []
    for _ in range(5):
        steps = env.step(np.array([0, 1, 2], np.int32))
        rows.append((steps.step_type[1], steps.reward[1], steps.discount[1]))
        np.testing.assert_array_equal(steps.reward > 0, steps.step_type != FIRST)
    assert rows == [(MID, 6, 1), (MID, 6, 1), (LAST, 6, 0), (FIRST, 0, 1), (MID, 6, 1)]
    np.testing.assert_array_equal(env.take_episodes().returns, [3 * 5, 3 * 6, 3 * 7])


def test_py_environment_keeps_truncation_apart():
    env = py_environment(1, True, 0, constructor=lambda: Countdown(truncates=True))
    env.reset()
    for _ in range(3):
        steps = env.step(np.zeros(1, np.int32))
    assert (steps.step_type[0], steps.discount[0]) == (LAST, 1.0)


def test_py_environment_from_gin():
    gin.external_configurable(Countdown, module="users_package")
    gin.parse_config("py_environment.constructor = @users_package.Countdown\n")
    env = py_environment(num_envs=2, training=True, seed=0)
    starts = env.reset().observation["start"]
    assert starts[0, 0] != starts[1, 0]  # `seed` is found through gin's decoration
    gin.clear_config()


def test_py_environment_refuses_what_it_cannot_batch():
    batched = BatchedPyEnvironment(gym_environment(2, True, 0, id="CartPole-v1"))
    with pytest.raises(ConfigurationError, match="`batched` must be False"):
        py_environment(2, True, 0, constructor=lambda: batched)
    with pytest.raises(ConfigurationError, match="must make a tf_agents"):
        py_environment(2, True, 0, constructor=dict)


@pytest.mark.parametrize(
    "make",
    [
        lambda: gym_environment(3, True, 0, id="CartPole-v1"),
        lambda: gym_environment(2, True, 0, id="Pendulum-v1"),
        lambda: gym_environment(2, True, 0, id="Taxi-v4"),
        lambda: gym_environment(2, True, 0, id="Blackjack-v1"),
        lambda: gym_environment(3, True, 0, id="tfdrl/Catch-v0"),
        lambda: gym_environment(3, True, 0, id="tfdrl/Chain-v0"),
        lambda: gym_environment(3, True, 0, id="tfdrl/Memory-v0"),
        lambda: gym_environment(2, True, 0, id="tfdrl/RandomFrames-v0"),
        lambda: atari_environment(2, True, 0, id="Breakout"),
        lambda: py_environment(2, True, 0, constructor=Countdown),
    ],
    ids=[
        "cartpole",
        "box",
        "discrete",
        "tuple",
        "catch",
        "chain",
        "memory",
        "frames",
        "atari",
        "dict",
    ],
)
def test_tf_agents_validates_it(make):
    utils.validate_py_environment(BatchedPyEnvironment(make()), episodes=3)


def test_as_a_tf_environment():
    env = BatchedPyEnvironment(gym_environment(4, True, 0, id="CartPole-v1"))
    tf_env = tf_py_environment.TFPyEnvironment(env)
    expected = time_step_spec(env.environment.observation_spec)
    assert tf_env.time_step_spec() == expected
    steps = tf_env.reset()
    assert steps.observation.shape == (4, 4) and bool(tf.reduce_all(steps.is_first()))
    for _ in range(30):
        steps = tf_env.step(tf.ones(4, tf.int32))
    assert len(env.environment.take_episodes().returns) >= 4


def test_to_tf_specs_nest():
    specs = to_tf_specs(
        {
            "image": ArraySpec((8, 8), np.dtype(np.uint8), 0, 255, "image"),
            "pair": (
                ArraySpec((2,), np.dtype(np.float32)),
                ArraySpec((), np.dtype(np.int32), 0, 3),
            ),
        }
    )
    image, (free, count) = specs["image"], specs["pair"]
    assert isinstance(image, tensor_spec.BoundedTensorSpec)
    assert (image.shape, image.dtype, image.name) == ((8, 8), tf.uint8, "image")
    assert (image.minimum, image.maximum) == (0, 255)
    assert isinstance(free, tf.TensorSpec)
    assert not isinstance(free, tensor_spec.BoundedTensorSpec)
    assert (count.dtype, count.maximum) == (tf.int32, 3)
