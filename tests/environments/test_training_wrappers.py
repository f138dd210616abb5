"""What wrappers change for training, and what evaluation shows."""

import logging

import gymnasium
import numpy as np
import pytest
from gymnasium import wrappers

from tfdrl.environments import gym_environment, shown_rewards
from tfdrl.errors import ConfigurationError


def hundredth(env):
    return wrappers.TransformReward(env, lambda reward: 0.01 * reward)


def first_return(training, **settings):
    with gym_environment(1, training, 1, id="CartPole-v1", **settings) as env:
        env.reset()
        while not len(returns := env.take_episodes().returns):
            steps = env.step(np.ones(1, np.int32))
        return float(returns[0]), float(steps.reward[0])


@pytest.mark.parametrize("vectorization", ["auto", "sync", "async"])
def test_wrappers_of_training_are_not_there_in_evaluation(vectorization):
    settings = {"training_wrappers": (hundredth,), "vectorization": vectorization}
    shown, reward = first_return(False, **settings)
    assert reward == 1.0 and shown >= 7 and shown % 1 == 0
    trained, reward = first_return(True, **settings)
    assert reward == pytest.approx(0.01)
    assert trained < 1


def test_both_kinds_are_applied_those_of_training_outside():
    seen = []

    def note(name):
        def wrapper(env):
            seen.append(name)
            return env

        return wrapper

    settings = {"wrappers": (note("task"),), "training_wrappers": (note("training"),)}
    first_return(True, **settings)
    assert seen == ["task", "training"]


def test_normalised_rewards_are_for_training_only():
    trained, _ = first_return(True, training_wrappers=(wrappers.NormalizeReward,))
    shown, _ = first_return(False, training_wrappers=(wrappers.NormalizeReward,))
    assert shown % 1 == 0 and trained != shown


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("vectorization", ["sync", "async"])
@pytest.mark.parametrize(
    ("argument", "wrapper", "cure"),
    [
        ("wrappers", wrappers.NormalizeObservation, "set normalization.observations = True"),
        ("wrappers", wrappers.NormalizeReward, "training_wrappers"),
    ],
)
def test_statistics_of_a_process_are_no_part_of_a_task(
    argument, wrapper, cure, training, vectorization
):
    # The evaluator would start from none, and show the policy other numbers than training did.
    with pytest.raises(ConfigurationError, match=f"{wrapper.__name__} keeps statistics .*{cure}"):
        first_return(training, **{argument: (wrapper,)}, vectorization=vectorization)


def test_those_of_an_environment_s_own_definition_are_found():
    def make(**kwargs):
        return wrappers.NormalizeObservation(gymnasium.make("CartPole-v1", **kwargs))

    gymnasium.register("tests/Normalised-v0", make)
    with pytest.raises(ConfigurationError, match="NormalizeObservation keeps statistics"):
        gym_environment(1, False, 0, id="tests/Normalised-v0")


@pytest.mark.parametrize(
    ("wrapper", "text"),
    [
        (wrappers.NormalizeObservation, "set normalization.observations"),
        (lambda env: wrappers.ReshapeObservation(env, (2, 2)), "change the observation_space"),
        (lambda env: wrappers.DtypeObservation(env, np.float64), "must have the same"),
    ],
)
def test_wrappers_of_training_leave_observations_as_they_are(wrapper, text):
    with pytest.raises(ConfigurationError, match=text):
        first_return(True, training_wrappers=(wrapper,))


def test_a_reward_that_evaluation_shows_changed_is_said_once(caplog):
    shown_rewards._warn_of_rewards.cache_clear()
    with caplog.at_level(logging.WARNING):
        first_return(True, wrappers=(hundredth,))
        assert not caplog.records
        for _ in range(2):
            first_return(False, wrappers=(hundredth,))
    (record,) = caplog.records
    assert "evaluation shows the rewards that TransformReward makes" in record.getMessage()
