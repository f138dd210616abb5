"""Gymnasium's wrappers by their names in gin, in this process and in others."""

import inspect
import subprocess
import sys

import gin
import gymnasium
import numpy as np
import pytest

from tfdrl import configuration
from tfdrl.configuration.catalogue import gymnasium_wrappers
from tfdrl.environments import gym_environment
from tfdrl.errors import ConfigurationError

_ITEMS = {item.name: item.completed() for item in gymnasium_wrappers().configurables}
_CARTPOLE = "gym_environment.id = 'CartPole-v1'"


@pytest.fixture(autouse=True)
def _no_bindings():
    yield
    gin.clear_config()


@pytest.mark.parametrize("name", _ITEMS)
def test_gin_s_parameters_are_those_of_gymnasium(name):
    found = inspect.signature(getattr(gymnasium.wrappers, name).__init__).parameters
    assert _ITEMS[name].parameter_names == [parameter for parameter in found if parameter != "self"]
    assert not _ITEMS[name].signature.accepts_any


def test_all_of_gymnasium_s_wrappers_of_one_environment_are_there():
    left_out = {"Autoreset", "RecordVideo", "HumanRendering", "RenderCollection", "vector"}
    left_out |= {"ArrayConversion", "JaxToNumpy", "JaxToTorch", "NumpyToTorch"}
    assert set(_ITEMS) | left_out >= set(gymnasium.wrappers.__all__)


@pytest.mark.parametrize(
    ("binding", "text"),
    [
        ("TimeLimit.max_steps = 3", "TimeLimit has no parameter max_steps; did you mean max_epis"),
        ("TimeLimit.max_episode_steps = 2.5", "must be int, not 2.5"),
        ("gym_environment.wrappers = [@FlatenObservation]", "did you mean FlattenObservation"),
    ],
)
def test_slips_are_found_before_anything_is_imported(binding, text):
    with pytest.raises(ConfigurationError, match=text):
        configuration.check([], [binding])


@pytest.mark.parametrize("name", ["wrappers", "training_wrappers"])
def test_one_wrapper_is_given_as_a_tuple_too(name):
    arguments = {"id": "CartPole-v1", name: gymnasium.wrappers.ClipReward}
    with pytest.raises(
        ConfigurationError, match=rf"{name} = .*ClipReward.* must be a tuple, such as"
    ):
        gym_environment(1, True, 0, **arguments)


@gin.configurable
class _Corridor(gymnasium.Env):
    """Shows its length."""

    observation_space = gymnasium.spaces.Box(-1024.0, 1024.0, (1, 1))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, length: float = 1.0):
        self._length = length

    def reset(self, *, seed=None, options=None):
        return np.full((1, 1), self._length, np.float32), {}

    def step(self, action):
        return np.full((1, 1), self._length, np.float32), 1.0, False, False, {}


gymnasium.register("tests/Corridor-v0", _Corridor)


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_wrappers_and_environments_are_as_gin_says_in_every_process(vectorization):
    # In a process of its own, an environment had the defaults of whatever gin configures.
    configuration.load(
        [],
        [
            "gym_environment.id = 'tests/Corridor-v0'",
            "gym_environment.wrappers = [@TimeLimit, @x/RescaleObservation, @FlattenObservation]",
            "TimeLimit.max_episode_steps = 3",
            "evaluator/TimeLimit.max_episode_steps = 2",
            "x/RescaleObservation.min_obs = 0.0",
            "x/RescaleObservation.max_obs = 1.0",
            f"gym_environment.vectorization = '{vectorization}'",
        ],
        tensorflow=False,
    )
    gin.bind_parameter("_Corridor.length", 512.0)
    for scope, length in (("", 3), ("evaluator", 2)):
        with gin.config_scope(scope or None), gym_environment(2, True, 0) as env:
            np.testing.assert_allclose(env.reset().observation, [[0.75], [0.75]])
            kinds = [int(env.step(np.zeros(2, np.int32)).step_type[0]) for _ in range(length)]
            assert kinds == [1] * (length - 1) + [2]


def test_wrappers_that_are_given_by_hand_are_sent_themselves():
    gin.bind_parameter("gym_environment.wrappers", [])

    def three_steps(env):
        return gymnasium.wrappers.TimeLimit(env, max_episode_steps=3)

    settings = {"id": "CartPole-v1", "wrappers": (three_steps,), "vectorization": "async"}
    with gym_environment(1, True, 0, **settings) as env:
        env.reset()
        assert [int(env.step(np.array([t % 2])).step_type[0]) for t in range(3)] == [1, 1, 2]


@pytest.mark.parametrize("vectorization", ["sync", "async"])
def test_a_wrapper_that_does_not_fit_is_named(vectorization):
    bindings = [_CARTPOLE, "gym_environment.wrappers = [@RescaleAction]"]
    bindings += ["RescaleAction.min_action = -1.0", "RescaleAction.max_action = 1.0"]
    configuration.load([], bindings, tensorflow=False)
    text = r"RescaleAction cannot wrap .*CartPole.*: Assertion.* \(at .*transform_action.py:\d+\)"
    with pytest.raises(ConfigurationError, match=text):
        gym_environment(1, True, 0, vectorization=vectorization)


def test_nothing_heavy_is_imported_for_their_names():
    text = (
        "import sys; from tfdrl import configuration; "
        "configuration.load([], ['TimeLimit.max_episode_steps = 3'], tensorflow=False); "
        "print(sorted({'torch', 'jax', 'cv2', 'moviepy', 'pygame', 'tensorflow'} "
        "& set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
