"""Gymnasium vector environments as time steps: resets, time limits, seeds, ownership."""

import numpy as np
import pytest
from gymnasium.envs.classic_control.cartpole import CartPoleVectorEnv
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import TimeLimit, TransformReward

from tfdrl.environments import gym_environment
from tfdrl.environments.vectorized import VectorizedEnvironment, environment_seeds
from tfdrl.errors import ConfigurationError
from tfdrl.types import FIRST, LAST, MID


def balance(observation):
    """A hand-written CartPole controller that reaches the limit of 500 steps."""
    position, velocity, angle, spin = observation.T
    return (0.1 * position + 0.3 * velocity + 3.0 * angle + spin > 0).astype(np.int32)


@pytest.mark.parametrize("vectorization", ["auto", "sync"])
def test_cartpole_time_limit_is_a_truncation_that_shows_the_last_observation(vectorization):
    env = gym_environment(2, True, 0, id="CartPole-v1", vectorization=vectorization)
    steps = env.reset()
    np.testing.assert_array_equal(steps.step_type, [FIRST, FIRST])
    for _ in range(499):
        steps = env.step(balance(steps.observation))
        np.testing.assert_array_equal(steps.step_type, [MID, MID])
    before = steps.observation
    steps = env.step(balance(before))
    np.testing.assert_array_equal(steps.step_type, [LAST, LAST])
    np.testing.assert_array_equal(steps.discount, [1.0, 1.0])
    np.testing.assert_array_equal(steps.reward, [1.0, 1.0])
    # One Euler step from the observation before (tau = 0.02): not a reset observation.
    expected = before[:, 0] + 0.02 * before[:, 1]
    np.testing.assert_allclose(steps.observation[:, 0], expected, atol=1e-6)
    steps = env.step(np.zeros(2, np.int32))
    np.testing.assert_array_equal(steps.step_type, [FIRST, FIRST])
    np.testing.assert_array_equal(steps.reward, [0.0, 0.0])
    assert np.all(np.abs(steps.observation) <= 0.05)
    episodes = env.take_episodes()
    np.testing.assert_array_equal(episodes.returns, [500.0, 500.0])
    np.testing.assert_array_equal(episodes.length_frames, [500, 500])


@pytest.mark.parametrize("vectorization", ["auto", "sync"])
def test_cartpole_fall_is_a_termination(vectorization):
    env = gym_environment(3, True, 0, id="CartPole-v1", vectorization=vectorization)
    steps, ended = env.reset(), 0
    for _ in range(60):
        previous, steps = steps, env.step(np.ones(3, np.int32))
        last = steps.step_type == LAST
        first = steps.step_type == FIRST
        np.testing.assert_array_equal(first, previous.step_type == LAST)
        np.testing.assert_array_equal(steps.discount, np.where(last, 0.0, 1.0))
        np.testing.assert_array_equal(steps.reward, np.where(first, 0.0, 1.0))
        # The last observation is the one that fell: past 12 degrees.
        assert np.all(np.abs(steps.observation[last, 2]) > 0.2095)
        ended += last.sum()
    episodes = env.take_episodes()
    assert ended == len(episodes.returns) > 10
    np.testing.assert_array_equal(episodes.returns, episodes.length_frames)


@pytest.mark.parametrize("vectorization", ["auto", "sync"])
def test_same_seed_same_trajectory_and_a_seed_for_each_environment(vectorization):
    def trajectory(seed):
        env = gym_environment(4, True, seed, id="CartPole-v1", vectorization=vectorization)
        rng = np.random.default_rng(0)
        observations = [env.reset().observation]
        for _ in range(100):
            observations.append(env.step(rng.integers(2, size=4)).observation)
        return np.stack(observations)

    first = trajectory(7)
    np.testing.assert_array_equal(first, trajectory(7))
    assert not np.array_equal(first, trajectory(8))
    assert len(np.unique(first[0], axis=0)) == 4


def test_environment_seeds_of_neighbouring_actors_do_not_overlap():
    seeds = [seed for actor in range(50) for seed in environment_seeds(actor, 20)]
    assert len(set(seeds)) == 50 * 20
    assert min(seeds) >= 0 and max(seeds) < 2**31


def test_time_steps_are_never_overwritten():
    env = gym_environment(3, True, 0, id="tfdrl/Catch-v0")
    kept = [env.reset()]
    kept += [env.step(np.zeros(3, np.int32)) for _ in range(12)]
    balls = [np.argwhere(steps.observation[0, :-1] == 1.0)[:, 0] for steps in kept[:9]]
    np.testing.assert_array_equal(np.concatenate(balls), np.arange(9))
    assert [int(steps.step_type[0]) for steps in kept[8:11]] == [MID, LAST, FIRST]


def test_rewards_are_clipped_for_learning_only():
    def scale(env):
        return TransformReward(env, lambda reward: 5.0 * reward)

    settings = {"id": "CartPole-v1", "clip_reward": 2.0, "wrappers": (scale,)}
    for training, expected in ((True, 2.0), (False, 5.0)):
        env = gym_environment(2, training, 0, **settings)
        env.reset()
        np.testing.assert_array_equal(env.step(np.ones(2, np.int32)).reward, [expected] * 2)
        while not len(returns := env.take_episodes().returns):
            env.step(np.ones(2, np.int32))
        assert returns[0] % 5 == 0 and returns[0] >= 5 * 7  # raw in both cases


def test_wrappers_apply_and_a_shorter_time_limit_truncates():
    env = gym_environment(
        1, True, 0, id="CartPole-v1", wrappers=(lambda env: TimeLimit(env, max_episode_steps=3),)
    )
    env.reset()
    steps = [env.step(np.array([t % 2])) for t in range(3)]
    assert [int(step.step_type[0]) for step in steps] == [MID, MID, LAST]
    assert steps[-1].discount[0] == 1.0


def test_async_gives_the_same_steps_as_sync():
    actions = np.random.default_rng(0).integers(3, size=(15, 2))
    runs = []
    for vectorization in ("sync", "async"):
        with gym_environment(2, True, 3, id="tfdrl/Catch-v0", vectorization=vectorization) as env:
            runs.append([env.reset()] + [env.step(action) for action in actions])
    for ours, theirs in zip(*runs):
        for one, other in zip(ours, theirs):
            np.testing.assert_array_equal(one, other)


def test_reset_starts_new_episodes_and_forgets_the_running_ones():
    env = gym_environment(2, True, 0, id="tfdrl/Chain-v0")
    right = np.ones(2, np.int32)
    env.reset()
    env.step(right)
    steps = env.reset()
    np.testing.assert_array_equal(steps.step_type, [FIRST, FIRST])
    for _ in range(4):
        steps = env.step(right)
    np.testing.assert_array_equal(steps.step_type, [LAST, LAST])
    np.testing.assert_array_equal(env.take_episodes().length_frames, [4, 4])


def test_another_autoreset_mode_is_refused():
    class SameStep(CartPoleVectorEnv):
        metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}

    with pytest.raises(ConfigurationError, match=r"NEXT_STEP.*vectorization"):
        VectorizedEnvironment(SameStep(num_envs=2), seed=0)
