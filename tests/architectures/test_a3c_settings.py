"""A3C's settings: what is refused and why, and the processes that they make."""

import pytest

from tfdrl.architectures import a3c
from tfdrl.architectures.a3c import A3c
from tfdrl.environments import gym_environment
from tfdrl.errors import EXIT_CONFIGURATION, ConfigurationError
from tfdrl.experiment import Experiment
from tfdrl.parameter_server.settings import ParameterServerSettings
from tfdrl.parameter_server.shard import require_settings
from tfdrl.rpc.report_rules import ReportRules


def settings(**kwargs):
    defaults = {"environment": gym_environment, "agent": object}
    return A3c(**{**defaults, "parameter_server": ParameterServerSettings(), **kwargs})


COUNTS = (
    *("workers", "environments_per_worker", "t_max", "parameter_servers"),
    *("target_period_steps", "evaluation_environments", "slowdown"),
)


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [0, -1])
def test_counts_are_1_or_more(name, value):
    with pytest.raises(ConfigurationError, match=rf"a3c\.{name} = {value} must be 1 or more"):
        settings(**{name: value})


def test_a_slowdown_is_a_number():
    with pytest.raises(ConfigurationError, match="slowdown = nan must be 1 or more"):
        settings(slowdown=float("nan"))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (
            {"workers": 2, "slowed_workers": 3},
            r"a3c\.slowed_workers = 3 must be between 0 and a3c\.workers = 2",
        ),
        ({"slowed_workers": -1}, r"a3c\.slowed_workers = -1 must be between 0"),
        (
            {"epsilon_final": (0.1, 0.2)},
            r"epsilon_final = \(0\.1, 0\.2\) with .*needs a probability",
        ),
        ({"epsilon_probabilities": (0.5, 0.6, -0.1)}, "must sum to 1"),
        ({"epsilon_probabilities": (0.5, 0.4, 0.2)}, "must sum to 1"),
        (
            {"threads": True, "parameter_servers": 2},
            r"a3c\.threads with a3c\.parameter_servers = 2: .*set parameter_servers = 1",
        ),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(kwargs, message):
    with pytest.raises(ConfigurationError, match=message) as refusal:
        settings(**kwargs)
    assert refusal.value.exit_code == EXIT_CONFIGURATION == 2


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"rule": "adamax"}, r"rule = 'adamax' is unknown; use one of sgd, adagrad, rmsprop, adam"),
        ({"learning_rate": 0.0}, r"learning_rate = 0\.0 must be a finite number above 0"),
        ({"learning_rate": float("inf")}, r"learning_rate = inf must be a finite number"),
        ({"learning_rate": float("nan")}, r"learning_rate = nan must be a finite number"),
        ({"decay": 1.0}, r"decay = 1\.0 must be at least 0 and below 1"),
        ({"beta_1": -0.1}, r"beta_1 = -0\.1 must be at least 0 and below 1"),
        ({"beta_2": 1.0}, r"beta_2 = 1\.0 must be at least 0 and below 1"),
        ({"initial_accumulator": -1.0}, r"initial_accumulator = -1\.0 must be 0 or more"),
        ({"snapshot_period_updates": 0}, "snapshot_period_updates = 0 must be 1 or more"),
        ({"snapshots": -1}, "snapshots = -1 must be 0 or more"),
        ({"checkpoint_period_secs": -1.0}, r"checkpoint_period_secs = -1\.0 must be 0 or more"),
        ({"max_rollbacks": -1}, "max_rollbacks = -1 must be 0 or more"),
        ({"anneal_steps": 0}, "anneal_steps = 0 must be 1 or more, or None"),
        ({"epsilon": 0.0}, r"epsilon = 0\.0 must be above 0, or None"),
        ({"max_gradient_age": -1}, "max_gradient_age = -1 must be 0 or more, or None"),
        ({"rollback_loss_factor": 1.0}, r"rollback_loss_factor = 1\.0 must be above 1, or None"),
        ({"rollback_nonfinite": 0}, "rollback_nonfinite = 0 must be 1 or more, or None"),
    ],
)
def test_servers_that_cannot_work_are_refused_with_the_reason(kwargs, message):
    with pytest.raises(ConfigurationError, match=rf"parameter_server\.{message}"):
        ParameterServerSettings(**kwargs)


def test_an_age_limit_contradicts_synchronous_updates():
    limited = ParameterServerSettings(max_gradient_age=5)
    with pytest.raises(ConfigurationError, match=r"max_gradient_age = 5 with synchronous updates"):
        require_settings(settings(workers=2, synchronous=True).barrier, limited)
    require_settings(settings(workers=2).barrier, limited)


@pytest.mark.parametrize(
    ("rule", "expected"), [("sgd", 0.0), ("adagrad", 1e-8), ("rmsprop", 0.1), ("adam", 1e-8)]
)
def test_every_rule_has_an_epsilon_of_its_own(rule, expected):
    assert ParameterServerSettings(rule=rule).rule_epsilon == expected
    assert ParameterServerSettings(rule=rule, epsilon=0.5).rule_epsilon == 0.5


def roles_of(**kwargs):
    program = settings(**kwargs).program()
    assert (program.name, program.chief) == ("a3c", "coordinator")
    return {role.name: role for role in program.roles}


def test_program():
    """The figure: parameter servers <-> workers, and the coordinator beside them."""
    roles = roles_of(workers=5, parameter_servers=3, worker_threads=2, evaluator_niceness=7)
    assert list(roles) == ["parameter_server", "coordinator", "worker", "evaluator"]
    assert {name: role.replicas for name, role in roles.items()} == {
        **{"parameter_server": 3, "coordinator": 1},
        **{"worker": 5, "evaluator": 1},
    }
    assert {name: role.talks_to for name, role in roles.items()} == {
        **{"parameter_server": (), "coordinator": ("parameter_server",)},
        "worker": ("parameter_server", "coordinator"),
        "evaluator": ("coordinator",),
    }
    names = ["parameter_server", "coordinator"]
    assert [name for name, role in roles.items() if role.serves] == names
    assert [name for name, role in roles.items() if role.essential] == names
    assert [name for name, role in roles.items() if role.restarts] == ["parameter_server"]
    assert [name for name, role in roles.items() if role.encrypts] == ["coordinator"]
    assert (roles["worker"].threads, roles["evaluator"].niceness) == (2, 7)


def test_threads_are_one_process_and_an_evaluator():
    roles = roles_of(workers=5, threads=True)
    assert list(roles) == ["coordinator", "evaluator"]
    assert roles["coordinator"].talks_to == ()
    assert roles["coordinator"].threads == 0  # TensorFlow chooses
    assert roles["coordinator"].load() is a3c.threads


@pytest.mark.parametrize("threads", [False, True])
def test_reports_of_workers_count_whatever_they_run_as(threads):
    rules = ReportRules.of(Experiment(settings(workers=5, threads=threads)))
    assert rules.has("worker", 4) and not rules.has("worker", 5)
    assert rules.has("evaluator", 0) and not rules.has("learner", 0)
    assert rules.evaluators == {"evaluator"}


def test_barrier_is_of_all_workers():
    assert settings(workers=5).barrier == 0
    assert settings(workers=5, synchronous=True).barrier == 5


def test_roles_name_functions_that_there_are():
    for name, role in roles_of().items():
        assert role.load() is getattr(a3c, name)
