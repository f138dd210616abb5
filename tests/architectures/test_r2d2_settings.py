"""R2D2's settings: what is refused and why, and the processes that they make."""

import pytest

from tfdrl import configuration
from tfdrl.architectures import r2d2
from tfdrl.architectures.r2d2 import R2d2
from tfdrl.environments import gym_environment
from tfdrl.errors import ConfigurationError
from tfdrl.experiment import Experiment
from tfdrl.topology import Address, Context


def settings(**kwargs):
    return R2d2(**{"environment": gym_environment, "agent": object, **kwargs})


@pytest.mark.parametrize(
    "name",
    [
        *("sequence_steps", "actors", "environments_per_actor", "parameter_pull_period_frames"),
        *("batch_size", "publish_period_steps", "max_bad_steps", "evaluation_environments"),
        "prefetch_batches",
    ],
)
def test_counts_are_1_or_more(name):
    with pytest.raises(ConfigurationError, match=rf"r2d2\.{name} = 0 must be 1 or more"):
        settings(**{name: 0})


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"replay_ratio": -1.0}, r"r2d2\.replay_ratio = -1\.0 must be between 1e-6"),
        ({"replay_ratio": float("nan")}, r"r2d2\.replay_ratio = nan must be between"),
        (
            {"replay_ratio": 1.0, "replay_ratio_tolerance_items": 0},
            r"r2d2\.replay_ratio_tolerance_items = 0 must be >= 1",
        ),
    ],
)
def test_ratios_that_nothing_can_hold(kwargs, message):
    with pytest.raises(ConfigurationError, match=message):
        settings(**kwargs)


def test_program_is_the_papers_figure():
    program = settings(actors=3).program()
    roles = {role.name: role for role in program.roles}
    assert program.name == "r2d2"
    assert {name: role.talks_to for name, role in roles.items()} == {
        "replay": (),
        "learner": ("replay",),
        "actor": ("replay", "learner"),
        "evaluator": ("learner",),
    }
    assert roles["actor"].replicas == 3


def test_an_agent_without_priorities_of_sequences_is_refused(tmp_path):
    configuration.load(
        ["apex/cartpole.gin"],
        [
            "experiment.architecture = @r2d2()",
            "r2d2.environment = @gym_environment",
            "r2d2.agent = @NStepDqnAgent",
        ],
        tensorflow=True,
    )
    listen = Address("127.0.0.1", 1)
    context = Context("replay", 0, 1, tmp_path, listen)
    with pytest.raises(ConfigurationError, match=r"NStepDqnAgent gives no priorities.*@R2D2Agent"):
        r2d2.replay(Experiment.from_gin(), context)
