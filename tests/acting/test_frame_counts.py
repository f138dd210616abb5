"""Environment frames are the steps that environments made: a reset is none."""

import functools
import threading

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from tf_agents.policies import random_tf_policy

from tfdrl import environments_tf
from tfdrl.acting.loop import ActorLoop
from tfdrl.environments.registry import gym_environment
from tfdrl.topology import Context


class Counted(gymnasium.Env):
    """Episodes of three steps; counts its own."""

    observation_space = spaces.Box(0, 1, (2,), np.float32)
    action_space = spaces.Discrete(2)
    made = 0

    def reset(self, *, seed=None, options=None):
        self._left = 3
        return np.zeros(2, np.float32), {}

    def step(self, action):
        Counted.made += 1
        self._left -= 1
        return np.zeros(2, np.float32), 1.0, self._left == 0, False, {}


gymnasium.register("tests/Counted-v0", entry_point=Counted, max_episode_steps=100)


class Connection:
    """Keeps what an actor reports."""

    version = 0

    def check(self):
        pass

    def report(self, frames, metrics, episodes):
        self.frames = frames


@pytest.mark.parametrize("num_envs", [1, 3])
def test_an_actor_counts_the_steps_of_its_environments(num_envs, tmp_path):
    Counted.made = 0
    context = Context("actor", 0, 1, tmp_path, stop=threading.Event())
    make = functools.partial(gym_environment, id="tests/Counted-v0", vectorization="sync")
    with make(num_envs=num_envs, training=True, seed=1) as environment:
        specs = environments_tf.time_step_spec(environment.observation_spec)
        actions = environments_tf.to_tf_specs(environment.action_spec)
        policy = random_tf_policy.RandomTFPolicy(specs, actions)
        loop = ActorLoop(environment, policy, Connection(), context)
        for number, _ in enumerate(loop.steps()):
            if number == 20:
                context.stop.set()
        assert loop.frames == loop.steps_made == loop.frames_since_pull == Counted.made
    assert Counted.made == num_envs * (21 - 21 // 4)  # every fourth is a reset
