"""Evaluation on environments whose returns are known."""

import time

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.trajectories import policy_step

from tfdrl.environments import gym_environment
from tfdrl.evaluation.episodes import play, summarise
from tfdrl.runtime.compiled import compiled


def environment(name, num_envs, clip_reward=None, **kwargs):
    return gym_environment(
        num_envs, False, 5, id=f"tfdrl/{name}-v0", kwargs=kwargs, clip_reward=clip_reward
    )


class Answer:
    """What a policy step holds, as tensors do."""

    def __init__(self, value):
        self._value = value

    def numpy(self):
        return self._value


def acting(choose):
    """An act function from `choose(observation) -> action`."""

    def act(step_type, reward, discount, observation, state):
        action = np.asarray(choose(observation), np.int32)
        return policy_step.PolicyStep(Answer(action), state, ())

    return act


def no_state(_):
    return ()


def follow_ball(observation):
    ball = observation[:, :-1].max(axis=1).argmax(axis=1)
    return np.sign(ball - observation[:, -1].argmax(axis=1)) + 1


def right(observation):
    return np.ones(len(observation))


@pytest.mark.parametrize(("num_envs", "episodes"), [(1, 3), (4, 8), (4, 9), (4, 1)])
def test_chain_is_walked_to_its_end(num_envs, episodes):
    """Five states: three steps that cost 0.1 each, then 1."""
    with environment("Chain", num_envs) as env:
        returns = play(env, acting(right), no_state, episodes)
    np.testing.assert_allclose(returns, np.full(episodes, 1 - 0.3), rtol=1e-6)


def test_catch_is_always_caught_or_always_missed():
    with environment("Catch", 3) as env:
        np.testing.assert_array_equal(play(env, acting(follow_ball), no_state, 30), np.ones(30))
    with environment("Catch", 3) as env:
        away = acting(lambda o: np.where(o[:, :-1, :2].any(axis=(1, 2)), 2, 0))
        np.testing.assert_array_equal(play(env, away, no_state, 30), -np.ones(30))


def test_truncated_episodes_count_whole():
    """Never walking right, an episode is cut after 50 steps of -0.1."""
    with environment("Chain", 2) as env:
        returns = play(env, acting(lambda o: np.zeros(len(o))), no_state, 2)
    np.testing.assert_allclose(returns, [-5.0, -5.0], rtol=1e-5)


@pytest.mark.parametrize(("episodes", "quota"), [(9, [3, 3, 3]), (8, [3, 3, 2])])
def test_every_environment_plays_as_many_episodes(episodes, quota):
    """Environment 0 walks to the end, 4 steps an episode; the others wait 20 steps first.

    Had the first episodes to end been taken, most would be of environment 0.
    """
    waited = np.zeros(3, int)

    def choose(observation):
        is_start = observation[:, 0] == 1
        waits = is_start & (waited < 20) & (np.arange(3) > 0)
        waited[:] = np.where(is_start, waited + 1, 0)
        return np.where(waits, 0, 1)

    progress = []
    with environment("Chain", 3) as env:
        returns = play(env, acting(choose), no_state, episodes, on_step=progress.append)
    # The others lose 0.1 in each step of waiting.
    expected = np.repeat([0.7, 0.7 - 2.0, 0.7 - 2.0], quota)
    np.testing.assert_allclose(returns, expected, rtol=1e-5)
    counts = [len(ended) for ended in progress]
    assert counts[0] == 0 and counts[-1] == episodes and counts == sorted(counts)
    assert counts[14] == 3  # by then environment 0 has done its share, and it stops counting
    assert counts[23] == 3


def test_rewards_are_raw():
    """Training may clip; an evaluation environment does not."""
    with environment("Chain", 1, clip_reward=0.01) as env:
        np.testing.assert_allclose(play(env, acting(right), no_state, 1), [0.7], rtol=1e-6)


def test_the_state_of_the_policy_goes_round():
    seen = []

    def act(step_type, reward, discount, observation, state):
        seen.append(int(state))
        return policy_step.PolicyStep(Answer(np.ones(2, np.int32)), state + 1, ())

    with environment("Chain", 2) as env:
        play(env, act, lambda batch: 10 * batch, 2)
    assert seen == [20, 21, 22, 23]


def test_told_to_stop_only_whole_episodes_are_returned():
    asked = []

    def should_stop():
        asked.append(None)
        return len(asked) > 11

    with environment("Chain", 2) as env:
        returns = play(env, acting(right), no_state, 100, should_stop)
    # An episode is 4 steps and the FIRST of the next: after 11 steps two of each are whole.
    np.testing.assert_allclose(returns, [0.7] * 4, rtol=1e-6)


def test_summary():
    start_secs = time.monotonic() - 2.0
    summary = summarise(np.array([1.0, 2.0, 3.0, 6.0]), version=7, frames=99, start_secs=start_secs)
    deviation = np.sqrt((4 + 1 + 0 + 9) / 3)
    assert summary.version == 7 and summary.frames == 99 and summary.episodes == 4
    assert (summary.mean, summary.median, summary.min, summary.max) == (3.0, 2.5, 1.0, 6.0)
    assert summary.standard_error == pytest.approx(deviation / 2)
    assert summary.seconds == pytest.approx(2.0, abs=0.5)


def test_summary_of_one_episode():
    summary = summarise(np.array([4.0]), 0, 0, time.monotonic())
    assert summary.standard_error == 0.0 and summary.mean == 4.0


def test_a_compiled_function_sees_new_values_of_all_that_it_uses():
    variable = tf.Variable(10.0)

    def function(used, passed, ignored, nested):
        del ignored
        return {
            "sum": variable + used,
            "same": passed,
            "deep": tf.function(lambda x: 2 * x)(nested),
        }

    run = compiled(function)
    for i in range(3):
        values = [np.full(shape, i, np.float32) for shape in ((), (2,), (3,), ())]
        outputs, like = run(values)
        found = tf.nest.pack_sequence_as(like, outputs)
        assert found["sum"] == variable + i
        np.testing.assert_array_equal(found["same"], [i, i])
        assert found["deep"] == 2 * i
        variable.assign_add(1.0)
    outputs, _ = run([np.float32(5), np.ones(4, np.float32), np.ones(3), np.float32(1)])
    assert sorted(np.size(output) for output in outputs) == [1, 1, 4]  # another shape
