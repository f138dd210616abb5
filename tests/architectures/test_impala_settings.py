"""IMPALA's settings: what is refused and why, and the processes that they make."""

import pytest

from tfdrl.architectures import impala
from tfdrl.architectures.impala import Impala
from tfdrl.environments import gym_environment
from tfdrl.errors import ConfigurationError


def settings(**kwargs):
    return Impala(**{"environment": gym_environment, "agent": object, **kwargs})


COUNTS = (
    "unroll_steps",
    "batch_size",
    "actors",
    "environments_per_actor",
    "learners",
    "replay_capacity_unrolls",
    "publish_period_steps",
    "max_bad_steps",
    "evaluation_environments",
)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [0, -1])
def test_counts_are_1_or_more(name, value):
    with pytest.raises(ConfigurationError, match=rf"impala\.{name} = {value} must be 1 or more"):
        settings(**{name: value})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"policy_lag_steps": -1}, r"impala\.policy_lag_steps = -1 must be 0 or more"),
        ({"replay_share": 1.0}, r"replay_share = 1\.0 .*below 1.*actors would wait for ever"),
        ({"replay_share": -0.1}, r"replay_share = -0\.1 must be at least 0"),
        ({"replay_share": float("nan")}, "replay_share = nan must be at least 0 and below 1"),
        (
            {"batch_size": 2, "replay_share": 0.8},
            r"replay_share = 0\.8 of a batch of 2 leaves no fresh unroll.*use a larger batch_size",
        ),
        (
            {"batch_size": 8, "queue_capacity_unrolls": 7},
            "queue_capacity_unrolls = 7 can never hold the 8 fresh unrolls of a batch.*wait for",
        ),
        (
            {"batch_size": 8, "replay_share": 0.5, "queue_capacity_unrolls": 3},
            "queue_capacity_unrolls = 3 can never hold the 4 fresh unrolls",
        ),
        ({"queue_capacity_unrolls": 0}, "queue_capacity_unrolls = 0 can never hold"),
        (
            {"actors": 2, "learners": 3},
            "actors = 2 with impala.learners = 3: a learner without an actor would never",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(kwargs, message):
    with pytest.raises(ConfigurationError, match=message):
        settings(**kwargs)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"batch_size": 1, "actors": 1, "unroll_steps": 1},
        {"batch_size": 8, "queue_capacity_unrolls": 8},
        {"batch_size": 8, "replay_share": 0.5, "queue_capacity_unrolls": 4},
        {"batch_size": 2, "replay_share": 0.5},
        {"actors": 3, "learners": 3},
        {"policy_lag_steps": 0},
    ],
)
def test_what_just_works_is_accepted(kwargs):
    assert settings(**kwargs).fresh_unrolls >= 1


def roles_of(**kwargs):
    program = settings(**kwargs).program()
    assert program.name == "impala"
    return {role.name: role for role in program.roles}


def test_program():
    """The figure: actors -> replay -> learner -> actors and evaluator."""
    roles = roles_of(actors=5, learner_threads=3, actor_threads=2, actor_niceness=7)
    assert list(roles) == ["replay", "learner", "actor", "evaluator"]
    assert {name: role.replicas for name, role in roles.items()} == {
        **{"replay": 1, "learner": 1},
        **{"actor": 5, "evaluator": 1},
    }
    assert {name: role.talks_to for name, role in roles.items()} == {
        **{"replay": (), "learner": ("replay",)},
        **{"actor": ("replay", "learner"), "evaluator": ("learner",)},
    }
    assert [name for name, role in roles.items() if role.serves] == ["replay", "learner"]
    assert [name for name, role in roles.items() if role.essential] == ["replay", "learner"]
    assert (roles["learner"].threads, roles["actor"].threads) == (3, 2)
    niceness = {name: role.niceness for name, role in roles.items()}
    assert niceness == {"replay": 0, "learner": 0, "actor": 7, "evaluator": 7}


def test_every_learner_has_a_queue_and_takes_part_in_the_cluster():
    roles = roles_of(actors=5, learners=3)
    assert {name: role.replicas for name, role in roles.items()} == {
        **{"replay": 3, "learner": 3},
        **{"actor": 5, "evaluator": 1},
    }
    assert [name for name, role in roles.items() if role.clusters] == ["learner"]


def test_roles_name_functions_that_there_are():
    for name, role in roles_of().items():
        assert role.load() is getattr(impala, name)
