"""The policies that come with tfdrl play as their cards say."""

import re
import threading

import gin
import numpy as np
import pytest

from binaries import evaluate as command
from tfdrl import configuration
from tfdrl.errors import ConfigurationError
from tfdrl.launch import run_directory, trained_policies
from tfdrl.launch.tools import evaluate

_NAMES = trained_policies.names()
_MOST_BYTES = 1_000_000
_EPISODES = 4


def _stated(card, word):
    return float(re.search(rf"{word} (-?[\d.]+)", card).group(1))


@pytest.fixture(autouse=True)
def no_settings_left():
    yield
    gin.clear_config()


@pytest.mark.parametrize("name", _NAMES)
def test_it_plays_as_its_card_says(name):
    directory = trained_policies.find(name)
    card = (directory / trained_policies.CARD).read_text()
    policy = directory / run_directory.POLICY
    request = evaluate.Request(directory, _EPISODES, policy=str(policy), environments=_EPISODES)
    played = evaluate.evaluate(request, threading.Event(), lambda line: None)
    mean, error, low, high = (_stated(card, w) for w in ("mean", "±", "lowest", "highest"))
    deviation = error * np.sqrt(_stated(card, "greedy,"))
    assert played.episodes == _EPISODES and low <= played.min and played.max <= high
    assert abs(played.mean - mean) <= 4 * deviation / np.sqrt(_EPISODES)


@pytest.mark.parametrize("name", _NAMES)
def test_it_is_small_and_its_settings_are_read(name):
    directory = trained_policies.find(name)
    files = [path for path in directory.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < _MOST_BYTES
    configuration.check([directory / run_directory.CONFIG])


def test_each_is_called_after_its_task_and_its_architecture():
    assert _NAMES
    for name in _NAMES:
        config = trained_policies.find(name) / run_directory.CONFIG
        architecture = re.search(r"experiment.architecture = @(\w+)", config.read_text()).group(1)
        environment = re.search(r"gym_environment.id = '(.*)-v\d'", config.read_text()).group(1)
        task, _, suffix = name.rpartition("-")
        assert suffix == architecture
        assert task.replace("_", "") == environment.rpartition("/")[2].lower()


def test_the_command_lists_them(capsys):
    assert command.main(["tfdrl evaluate", "--policy=list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == _NAMES
    assert all("mean return" in line for line in lines)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("cartpole-impla", "no trained policy that comes with .*the nearest .*cartpole-impala"),
        ("../policies", "is no directory, and no trained policy .*--policy=list lists those"),
    ],
)
def test_another_name_is_refused(name, error):
    with pytest.raises(ConfigurationError, match=error):
        command.main(["tfdrl evaluate", f"--policy={name}"])
