"""Gorila's settings: what is refused and why, and the processes that they make."""

import functools

import pytest

from tfdrl.agents.n_step_dqn import NStepDqnAgent
from tfdrl.architectures import gorila
from tfdrl.architectures.gorila import Gorila
from tfdrl.environments import gym_environment
from tfdrl.errors import ConfigurationError
from tfdrl.experiment import Experiment
from tfdrl.networks.q_networks import MlpQNetwork
from tfdrl.parameter_server.outlier_filter import OutlierFilter
from tfdrl.parameter_server.settings import ParameterServerSettings


def settings(**kwargs):
    defaults = {"environment": gym_environment, "agent": object}
    return Gorila(**{**defaults, "parameter_server": ParameterServerSettings(), **kwargs})


COUNTS = (
    *("workers", "actors", "learners", "replays", "parameter_servers", "n_step"),
    *("environments_per_worker", "replay_capacity_steps", "min_replay_steps", "frame_stack"),
    *("batch_size", "update_period_steps", "target_period_updates", "actor_buffer_transitions"),
    *("parameter_pull_period_frames", "prefetch_batches", "slowdown", "evaluation_environments"),
)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [0, -1])
def test_counts_are_1_or_more(name, value):
    with pytest.raises(ConfigurationError, match=rf"gorila\.{name} = {value} must be 1 or more"):
        settings(**{name: value})


def test_a_slowdown_is_a_number():
    with pytest.raises(ConfigurationError, match="slowdown = nan must be 1 or more"):
        settings(slowdown=float("nan"))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"gamma": 1.1}, r"gamma = 1\.1 must be between 0 and 1"),
        ({"gamma": -0.1}, r"gamma = -0\.1 must be between 0 and 1"),
        ({"gamma": float("nan")}, "gamma = nan must be between 0 and 1"),
        ({"workers": 2, "slowed_workers": 3}, "slowed_workers = 3 must be between 0 and the 2"),
        (
            {"bundled": False, "workers": 9, "learners": 2, "slowed_workers": 3},
            "slowed_workers = 3 must be between 0 and the 2 that compute gradients",
        ),
        ({"slowed_workers": -1}, "slowed_workers = -1 must be between 0"),
        ({"replay_ratio": 2.0}, r"gorila\.replay_ratio = 2\.0 is for a global replay"),
        ({"bundled": False, "replay_ratio": 0.0}, r"gorila\.replay_ratio = 0\.0 must be between"),
        (
            {"bundled": False, "replay_ratio_tolerance_items": 5},
            r"replay_ratio_tolerance_items = 5 without gorila\.replay_ratio",
        ),
        (
            {"environments_per_worker": 8, "n_step": 5, "min_replay_steps": 47},
            r"min_replay_steps = 47 must be between 48 \(one window of each environment\)",
        ),
        (
            {"min_replay_steps": 101, "replay_capacity_steps": 100},
            "replay_capacity_steps = 100: otherwise learning would never start",
        ),
        (
            {"bundled": False, "actors": 1, "replays": 2},
            "actors = 1 with gorila.replays = 2: a replay without an actor stays empty",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(kwargs, message):
    with pytest.raises(ConfigurationError, match=message):
        settings(**kwargs)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0.0, 20, 10), r"outlier_num_std = 0\.0 must be positive and finite, or None"),
        ((4.0, 1, 10), "outlier_warmup = 1 must be at least 2"),
        ((4.0, 20, 0), "outlier_max_rejections_in_a_row = 0 must be at least 1"),
    ],
)
def test_outliers_that_cannot_be_told_are_refused_with_the_reason(arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        OutlierFilter(*arguments)


@pytest.mark.parametrize(
    "kwargs",
    [
        {},
        {"environments_per_worker": 8, "n_step": 5, "min_replay_steps": 48},
        {"min_replay_steps": 100, "replay_capacity_steps": 100},
        {"bundled": False, "actors": 2, "replays": 2},
        # Of no matter in the other mode.
        {"actors": 1, "replays": 2},
        {"bundled": False, "min_replay_steps": 1},
        {"workers": 2, "slowed_workers": 2},
    ],
)
def test_what_just_works_is_accepted(kwargs):
    assert settings(**kwargs).gradient_workers >= 1


def roles_of(**kwargs):
    program = settings(**kwargs).program()
    assert (program.name, program.chief) == ("gorila", "coordinator")
    return {role.name: role for role in program.roles}


def test_program_of_bundles():
    """Workers meet at the parameter servers only."""
    roles = roles_of(workers=5, parameter_servers=3, worker_threads=2, actor_niceness=7)
    assert list(roles) == ["parameter_server", "coordinator", "worker", "evaluator"]
    assert [role.replicas for role in roles.values()] == [3, 1, 5, 1]
    assert roles["worker"].talks_to == ("parameter_server", "coordinator")
    assert (roles["worker"].threads, roles["worker"].niceness) == (2, 0)
    assert roles["evaluator"].niceness == 7


def test_program_with_a_global_replay():
    """The figure: actors -> replay -> learners <-> parameter servers -> actors."""
    roles = roles_of(
        bundled=False, actors=5, learners=3, replays=2, parameter_servers=4, actor_niceness=7
    )
    names = ["replay", "parameter_server", "coordinator"]
    assert list(roles) == [*names, "learner", "actor", "evaluator"]
    assert [role.replicas for role in roles.values()] == [2, 4, 1, 3, 5, 1]
    told = ("replay", "parameter_server", "coordinator")
    assert {name: role.talks_to for name, role in roles.items()} == {
        **{"replay": (), "parameter_server": (), "coordinator": ("parameter_server",)},
        **{"learner": told, "actor": told, "evaluator": ("coordinator",)},
    }
    assert [name for name, role in roles.items() if role.serves] == names
    assert [name for name, role in roles.items() if role.essential] == names
    assert [name for name, role in roles.items() if role.restarts] == ["parameter_server"]
    niceness = {name: role.niceness for name, role in roles.items() if role.niceness}
    assert niceness == {"actor": 7, "evaluator": 7}


@pytest.mark.parametrize("bundled", [True, False])
def test_roles_name_functions_that_there_are(bundled):
    for name, role in roles_of(bundled=bundled).items():
        function = role.load()
        assert function.__name__ == name
        assert function is getattr(gorila, name, None) or not bundled


def test_a_discount_that_is_not_the_agents_is_refused_by_every_role():
    """Servers, coordinator, workers and actors make the gradient, whose variables they share."""
    config = Gorila(
        environment=functools.partial(gym_environment, id="tfdrl/Chain-v0"),
        agent=functools.partial(NStepDqnAgent, network=MlpQNetwork, optimizer=None, gamma=0.9),
        parameter_server=ParameterServerSettings(),
        gamma=0.8,
    )
    with pytest.raises(ConfigurationError, match=r"gorila\.gamma = 0\.8.*gamma = 0\.9"):
        gorila.make_learner(Experiment(config))
