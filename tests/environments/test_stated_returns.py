"""The returns that an environment's statements allow."""

import math

import gymnasium
import numpy as np
import pytest
from tf_agents.environments import py_environment as tfa_environment
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step as ts

from tfdrl import environments_tf
from tfdrl.environments import registry
from tfdrl.environments.stated_returns import ANY_RETURN, return_range

INF = math.inf


class Stating(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0.0, 1.0, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, reward_range=None):
        if reward_range is not None:
            self.reward_range = reward_range


gymnasium.register("stating/Limited-v0", Stating, max_episode_steps=50)
gymnasium.register("stating/Endless-v0", Stating)


@pytest.mark.parametrize(
    "rewards, most_steps, expected",
    [
        ((-1.0, 1.0), 50, (-50.0, 50.0)),
        ((-1.0, 1.0), INF, ANY_RETURN),
        ((0.0, 2.0), 50, (0.0, 100.0)),  # an episode has one step at least
        ((0.5, 2.0), 50, (0.5, 100.0)),
        ((0.0, 1.0), INF, (0.0, INF)),
        ((-2.0, -1.0), 50, (-100.0, -1.0)),
        ((-1.0, 0.0), INF, (-INF, 0.0)),
        ((-INF, INF), 50, ANY_RETURN),
    ],
)
def test_return_range(rewards, most_steps, expected):
    assert return_range(rewards, most_steps) == expected


@pytest.mark.parametrize(
    "name, stated, expected",
    [
        ("Limited", (-1, 2), (-50.0, 100.0)),
        ("Endless", (0, 1), (0.0, INF)),
        ("Limited", None, ANY_RETURN),
        ("Limited", "both", ANY_RETURN),
        ("Limited", (1, -1), ANY_RETURN),
        ("Limited", (math.nan, 1), ANY_RETURN),
    ],
)
def test_a_gymnasium_environment(name, stated, expected):
    with registry.gym_environment(
        num_envs=1,
        training=True,
        seed=1,
        id=f"stating/{name}-v0",
        kwargs={"reward_range": stated},
        clip_reward=1.0,  # of training, which changes no raw return
    ) as environment:
        assert environment.return_range == expected


class Paid(tfa_environment.PyEnvironment):
    def observation_spec(self):
        return array_spec.ArraySpec((1,), np.float32)

    def action_spec(self):
        return array_spec.BoundedArraySpec((), np.int32, 0, 1)

    def reward_spec(self):
        return array_spec.BoundedArraySpec((), np.float32, 0.0, 1.0)

    def _reset(self):
        return ts.restart(np.zeros(1, np.float32))

    def _step(self, action):
        return ts.termination(np.zeros(1, np.float32), 1.0)


def test_a_py_environment():
    assert environments_tf.UnbatchedPyEnvironments([Paid()]).return_range == (0.0, INF)


class Shifted(gymnasium.RewardWrapper):
    def reward(self, reward):
        return reward - 1.0


class Unknown(gymnasium.Wrapper):
    """May do anything with rewards."""


class Scaled(gymnasium.ObservationWrapper):
    def observation(self, observation):
        return observation


@pytest.mark.parametrize(
    ("wrappers", "states"),
    [((), True), ((Scaled,), True), ((Shifted,), False), ((Unknown,), False)],
)
def test_behind_a_wrapper_that_may_change_rewards_nothing_is_stated(wrappers, states):
    environment = registry.gym_environment(
        1, False, 0, id="stating/Limited-v0", kwargs={"reward_range": (0, 1)}, wrappers=wrappers
    )
    assert environment.return_range == ((0.0, 50.0) if states else ANY_RETURN)
    environment.close()
