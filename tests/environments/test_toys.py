"""The toys: an optimal policy attains `optimal_return`, and Gymnasium's checks pass."""

import warnings

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from tfdrl.environments import gym_environment
from tfdrl.types import FIRST, LAST

IDS = ("Chain", "Catch", "CatchMemory", "Memory", "RandomFrames", "Sleep")


@pytest.mark.parametrize("name", IDS)
def test_gymnasium_check(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on bounds and rendering, not errors
        check_env(gymnasium.make(f"tfdrl/{name}-v0").unwrapped, skip_render_check=True)


def returns_of(name, policy, episodes=40, num_envs=4, **kwargs):
    env = gym_environment(num_envs, False, 0, id=f"tfdrl/{name}-v0", kwargs=kwargs)
    steps, returns = env.reset(), []
    while len(returns) < episodes:
        steps = env.step(policy(steps))
        returns.extend(env.take_episodes().returns)
    return np.array(returns)


def optimal_return(name, **kwargs):
    return gymnasium.make(f"tfdrl/{name}-v0", **kwargs).unwrapped.optimal_return


def follow_ball(steps):
    ball = steps.observation[:, :-1].max(axis=1).argmax(axis=1)
    paddle = steps.observation[:, -1].argmax(axis=1)
    return np.sign(ball - paddle) + 1


class Recall:
    """Remembers the cue of each environment's first step."""

    def __init__(self, num_envs=4):
        self.cue = np.zeros(num_envs, int)

    def __call__(self, steps):
        first = steps.step_type == FIRST
        self.cue[first] = steps.observation[first, 1]
        return self.cue


@pytest.mark.parametrize("num_states", [5, 10])
def test_chain(num_states):
    returns = returns_of("Chain", lambda steps: np.ones(4, int), num_states=num_states)
    np.testing.assert_allclose(returns, optimal_return("Chain", num_states=num_states), atol=1e-6)
    assert optimal_return("Chain") == pytest.approx(-0.1 - 0.1 - 0.1 + 1)


def test_chain_never_reaching_the_end_is_truncated():
    env = gym_environment(1, True, 0, id="tfdrl/Chain-v0")
    env.reset()
    for _ in range(50):
        steps = env.step(np.zeros(1, int))
    assert (steps.step_type[0], steps.discount[0]) == (LAST, 1.0)
    np.testing.assert_allclose(env.take_episodes().returns, [50 * -0.1], atol=1e-5)


def test_catch():
    np.testing.assert_array_equal(returns_of("Catch", follow_ball), optimal_return("Catch"))
    still = returns_of("Catch", lambda steps: np.ones(4, int), episodes=200)
    assert set(still) == {-1.0, 1.0} and still.mean() < 0  # the ball's column varies


class RememberBall:
    """Follows the ball to the column in which each environment's first step showed it."""

    def __init__(self, num_envs=4):
        self.column = np.zeros(num_envs, int)

    def __call__(self, steps):
        first = steps.step_type == FIRST
        self.column[first] = steps.observation[first, 0].argmax(axis=1)
        paddle = steps.observation[:, -1].argmax(axis=1)
        return np.sign(self.column - paddle) + 1


def best_without_memory(steps):
    """Its move at the first step says left, middle or right; the outer columns are given up."""
    shown = steps.observation[:, 0]
    seen = shown.max(axis=1) > 0
    return np.where(seen, np.sign(shown.argmax(axis=1) - 2) + 1, 1)


def test_catch_whose_ball_is_seen_once_needs_memory():
    remembered = returns_of("CatchMemory", RememberBall())
    np.testing.assert_array_equal(remembered, optimal_return("CatchMemory"))
    forgetful = returns_of("CatchMemory", best_without_memory, episodes=2000)
    assert forgetful.mean() == pytest.approx(0.2, abs=0.1)


@pytest.mark.parametrize("delay", [1, 8])
def test_memory_needs_the_cue(delay):
    recalled = returns_of("Memory", Recall(), delay=delay)
    np.testing.assert_array_equal(recalled, optimal_return("Memory"))
    forgetful = returns_of("Memory", lambda steps: np.ones(4, int), episodes=200, delay=delay)
    assert abs(forgetful.mean()) < 0.35  # no better than guessing


def test_memory_shows_the_cue_at_the_first_step_only_and_asks_at_the_last():
    env = gymnasium.make("tfdrl/Memory-v0", delay=3)
    observations = [env.reset(seed=0)[0]]
    terminated = False
    while not terminated:
        observation, _, terminated, _, _ = env.step(0)
        observations.append(observation)
    assert observations[0][:2].sum() == 1.0
    assert np.array(observations[1:])[:, :2].sum() == 0.0
    np.testing.assert_array_equal(np.array(observations)[:, 2], [0, 0, 0, 1, 0])


@pytest.mark.parametrize(("vectorization", "size"), [("auto", 84), ("sync", 84), ("auto", 20)])
def test_random_frames(vectorization, size):
    env = gym_environment(
        3,
        True,
        0,
        id="tfdrl/RandomFrames-v0",
        kwargs={"episode_steps": 5, "size": size},
        vectorization=vectorization,
    )
    steps = env.reset()
    assert steps.observation.shape == (3, size, size, 4) and steps.observation.dtype == np.uint8
    types = []
    for _ in range(12):
        previous, steps = steps, env.step(np.zeros(3, int))
        assert not np.array_equal(previous.observation[0], steps.observation[0])
        types.append(steps.step_type[0])
    #      episode 1 | FIRST, episode 2 | FIRST
    assert types == [1, 1, 1, 1, LAST, FIRST, 1, 1, 1, 1, LAST, FIRST]
    assert 5 in env.take_episodes().length_frames


def test_sleep_takes_its_time():
    import time

    env = gym_environment(1, True, 0, id="tfdrl/Sleep-v0", kwargs={"step_secs": 0.02})
    env.reset()
    start = time.monotonic()
    for _ in range(5):
        env.step(np.zeros(1, int))
    assert time.monotonic() - start >= 5 * 0.02
    returns = returns_of("Sleep", lambda s: np.zeros(4, int), 4, step_secs=0.0, episode_steps=7)
    np.testing.assert_array_equal(returns, optimal_return("Sleep", episode_steps=7))


def test_doors():
    def highest(steps):
        return DOORS - 1 - steps.observation["action_mask"][:, ::-1].argmax(axis=1)

    def lowest(steps):
        return steps.observation["action_mask"].argmax(axis=1)

    DOORS = 4
    np.testing.assert_array_equal(returns_of("Doors", highest, rooms=6), 6.0)
    np.testing.assert_array_equal(returns_of("Doors", lowest), 0.0)
    assert optimal_return("Doors", rooms=6) == 6.0
    env = gymnasium.make("tfdrl/Doors-v0")
    closed = np.flatnonzero(env.reset(seed=0)[0]["action_mask"] == 0)
    with pytest.raises(ValueError, match=f"door {closed[0]} is closed"):
        env.step(closed[0])
