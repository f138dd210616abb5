"""What people's environments do: each a kind of fault that was met in the field."""

import time

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from tf_agents.environments import random_py_environment
from tf_agents.specs import BoundedTensorSpec, TensorSpec, array_spec

from tfdrl import environments_tf
from tfdrl.agents.with_networks import agent_with_networks
from tfdrl.environments import closing
from tfdrl.environments.registry import gym_environment
from tfdrl.environments.spaces import action_converter, action_spec, observation_spec
from tfdrl.errors import ConfigurationError

_LARGEST = float(np.finfo(np.float32).max)


def box(low, high):
    return spaces.Box(low, high, (2,), np.float32)


@pytest.mark.parametrize(
    "space",
    [
        box(0.0, np.inf),
        box(-np.inf, 1.0),
        box(-np.inf, np.inf),
        box(-_LARGEST, _LARGEST),
        spaces.Box(np.array([0.0, -1.0]), np.array([np.inf, 1.0]), dtype=np.float64),
    ],
)
def test_an_action_without_a_usable_range_is_unbounded_and_clipped(space):
    spec = action_spec(space)
    assert spec.minimum is None and spec.maximum is None
    assert not isinstance(environments_tf.to_tf_specs(spec), BoundedTensorSpec)
    converted = action_converter(space)(np.array([[1e30, -1e30]], np.float32))
    assert space.contains(converted[0]) or not np.isfinite(space.high).all()
    assert (converted >= space.low).all() and (converted <= space.high).all()


def test_a_range_is_kept():
    spec = action_spec(box(-2.0, 3.0))
    assert (spec.minimum, spec.maximum) == (-2.0, 3.0)


class SacAgent:
    """Only its name counts: it scales."""


def test_agents_that_scale_refuse_actions_without_bounds():
    from tf_agents.trajectories import time_step as ts

    time_step = ts.time_step_spec(TensorSpec([3], np.float32))
    with pytest.raises(ConfigurationError, match="SacAgent needs an action with bounds"):
        agent_with_networks(time_step, TensorSpec([2], np.float32), agent=SacAgent, networks={})


def test_an_atari_id_is_what_gymnasium_makes():
    pytest.importorskip("ale_py")
    with gym_environment(num_envs=2, training=False, seed=1, id="ALE/MsPacman-v5") as environment:
        assert environment.observation_spec.shape == (210, 160, 3)
        environment.reset()
        rewards = [environment.step(np.full(2, 3, np.int32)).reward for _ in range(150)]
    assert np.max(rewards) >= 10.0  # a dot, unclipped


def test_empty_spaces_are_refused():
    for space in (spaces.Dict({}), spaces.Tuple(())):
        with pytest.raises(ConfigurationError, match="is empty"):
            observation_spec(space)


class Hangs(gymnasium.Env):
    """Its second step never ends."""

    observation_space, action_space = spaces.Box(0, 1, (1,), np.float32), spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        self._steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self._steps += 1
        time.sleep(0 if self._steps < 2 else 1000)
        return np.zeros(1, np.float32), 0.0, False, False, {}


gymnasium.register("tests/Hangs-v0", entry_point="test_field_faults:Hangs")


class HangingPyEnvironment(random_py_environment.RandomPyEnvironment):
    """Its closing never ends."""

    def __init__(self):
        action = array_spec.BoundedArraySpec((), np.int32, 0, 1)
        super().__init__(array_spec.BoundedArraySpec((1,), np.float32, 0, 1), action)

    def close(self):
        time.sleep(1000)


def test_closing_an_environment_that_hangs_is_bounded(monkeypatch):
    environment = gym_environment(
        num_envs=2, training=True, seed=1, id="tests/Hangs-v0", vectorization="async"
    )
    environment.reset()
    environment.step(np.zeros(2, np.int32))
    environment._vector_env.step_async(np.zeros(2, np.int32))  # whose answer never comes
    processes = environment._vector_env.unwrapped.processes
    begin_secs = time.monotonic()
    environment.close()
    assert time.monotonic() - begin_secs < 15.0
    for process in processes:
        process.join(5.0)
        assert not process.is_alive()


@pytest.mark.parametrize("how", ["sync", "vector class", "PyEnvironment"])
def test_closing_in_this_process_is_bounded(how, monkeypatch):
    monkeypatch.setattr(closing, "_LIMIT_SECS", 0.2)
    monkeypatch.setattr(Hangs, "close", lambda self: time.sleep(1000))
    kwargs = {"num_envs": 2, "training": True, "seed": 1}
    if how == "PyEnvironment":
        environment = environments_tf.py_environment(**kwargs, constructor=HangingPyEnvironment)
    else:
        environment = gym_environment(**kwargs, id="tests/Hangs-v0", vectorization="sync")
    if how == "vector class":
        monkeypatch.setattr(environment._vector_env, "close", lambda: time.sleep(1000))
    begin_secs = time.monotonic()
    environment.close()
    assert time.monotonic() - begin_secs < 5.0


@pytest.mark.parametrize(("fps", "expected"), [(None, 30.0), (0, 30.0), ("x", 30.0), (25, 25.0)])
def test_a_rate_that_is_no_positive_number_means_30(fps, expected, monkeypatch):
    monkeypatch.setitem(Hangs.metadata, "render_fps", fps)
    with gym_environment(num_envs=1, training=True, seed=1, id="tests/Hangs-v0") as environment:
        assert environment.steps_per_second == expected
