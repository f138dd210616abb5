"""SEED's settings: what is refused and why, and the processes that they make."""

import pytest

from tfdrl.architectures.seed import Seed
from tfdrl.environments import gym_environment
from tfdrl.errors import ConfigurationError


def settings(**kwargs):
    return Seed(**{"environment": gym_environment, "agent": object, **kwargs})


@pytest.mark.parametrize(
    "name",
    [
        *("unroll_steps", "batch_size", "actors", "environments_per_actor"),
        *("publish_period_steps", "max_bad_steps", "evaluation_environments"),
    ],
)
def test_counts_are_1_or_more(name):
    with pytest.raises(ConfigurationError, match=rf"seed\.{name} = 0 must be 1 or more"):
        settings(**{name: 0})


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        (
            {"queue_capacity_unrolls": 31},
            r"queue_capacity_unrolls = 31 can never hold the 32 unrolls .* would wait for each",
        ),
        (
            {"inference_max_batch_size": 7},
            r"inference_max_batch_size = 7 is below environments_per_actor = 8",
        ),
        ({"sequences_within_episodes": True}, r"sequences_within_episodes needs a replay"),
        ({"replay_ratio": 0.0}, r"replay_ratio = 0\.0 must be positive"),
        ({"inference_time_limit_ms": 0.0}, r"inference_time_limit_ms = 0\.0 must be positive"),
        ({"inference_devices": ()}, "inference_devices is empty"),
    ],
)
def test_what_could_never_work_is_refused(kwargs, words):
    with pytest.raises(ConfigurationError, match=words):
        settings(**kwargs)


def test_actors_do_not_need_tensorflow_and_talk_to_the_learner_only():
    config = settings(actors=3, environments_per_actor=5)
    program = config.program()
    assert [role.name for role in program.roles] == ["learner", "actor", "evaluator"]
    actor = program.role("actor")
    assert (actor.replicas, actor.talks_to, actor.needs_tensorflow) == (3, ("learner",), False)
    assert program.role("learner").serves and program.role("learner").essential
    assert (config.environments, config.max_rows) == (15, 15)
    assert settings(inference_max_batch_size=9).max_rows == 9


def test_with_a_replay_there_is_a_server_of_it():
    config = settings(replay_ratio=0.75, environments_per_actor=5)
    program = config.program()
    assert [role.name for role in program.roles] == ["replay", "learner", "actor", "evaluator"]
    assert program.role("learner").talks_to == ("replay",)
    assert config.taken_unrolls == 5
    assert settings().taken_unrolls == 32
