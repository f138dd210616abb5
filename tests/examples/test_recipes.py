"""The recipes of docs/recipes.md: their agents act in their environments; slowly, they train."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import gin
import numpy as np
import pytest
import tensorflow as tf
from paths import CHECKOUT, python_path
from tf_agents.trajectories import time_step

from tfdrl import configuration
from tfdrl.experiment import Experiment
from tfdrl.runtime import agent_factory
from tfdrl.types import FIRST, LAST

_HERE = CHECKOUT / "examples" / "recipes"
_PAGE = (CHECKOUT / "docs" / "recipes.md").read_text()

#: The package of each recipe that tfdrl does not install.
_PACKAGES = {
    "minigrid": "minigrid",
    "mujoco": "mujoco",
    "dm_control": "shimmy",
    "highway": "highway_env",
    "procgen": "procgen",
    "pettingzoo": "pettingzoo",
    "simulator": "numpy",
}


def _recipe(name):
    there = importlib.util.find_spec(_PACKAGES[name]) is not None
    return pytest.param(name, marks=pytest.mark.skipif(not there, reason=f"no {_PACKAGES[name]}"))


_RECIPES = list(map(_recipe, _PACKAGES))


@pytest.fixture
def here(monkeypatch):
    monkeypatch.chdir(_HERE)
    monkeypatch.syspath_prepend(str(_HERE))
    yield
    gin.clear_config()


def _architecture(name):
    with gin.unlock_config():
        gin.clear_config()
        configuration.load([f"{name}.gin"], [], tensorflow=True)
    return Experiment().architecture


def _made(architecture, num_envs):
    return architecture.environment(num_envs=num_envs, training=True, seed=1)


def _random_actions(environment, masks, rng):
    spec = environment.action_spec
    if spec.dtype.kind == "f":
        return rng.uniform(spec.minimum, spec.maximum, (environment.num_envs, *spec.shape))
    shape = (environment.num_envs, int(spec.maximum) + 1)
    allowed = np.ones(shape, bool) if masks is None else np.asarray(masks, bool)
    allowed = allowed | ~allowed.any(axis=1, keepdims=True)  # an episode that is over has none
    return np.array([rng.choice(np.flatnonzero(row)) for row in allowed], spec.dtype)


def test_the_page_has_every_recipe_of_at_most_ten_lines():
    assert {path.stem for path in _HERE.glob("*.gin")} == set(_PACKAGES)
    for name in _PACKAGES:
        text = (_HERE / f"{name}.gin").read_text()
        lines = [line for line in text.splitlines() if line and not line.startswith("#")]
        assert len(lines) <= 10 and f"\n```\n{text}```\n" in _PAGE, name
    for module in _HERE.glob("*.py"):
        assert f"\n```python\n{module.read_text()}```\n" in _PAGE, module.name


@pytest.mark.parametrize("name", _RECIPES)
def test_its_agent_acts_and_an_episode_ends(here, name):
    architecture = _architecture(name)
    environment = _made(architecture, num_envs=2)
    try:
        steps, rng = environment.reset(), np.random.default_rng(1)
        assert (steps.step_type == FIRST).all()
        agent = agent_factory.make_agent(architecture.agent, environment)
        observation = tf.nest.map_structure(tf.convert_to_tensor, steps.observation)
        state = agent.collect_policy.get_initial_state(2)
        acted = agent.collect_policy.action(time_step.restart(observation, 2), state)
        steps = environment.step(acted.action.numpy())
        for _ in range(1100):
            if (steps.step_type == LAST).any():
                break
            masks = steps.observation["action_mask"] if environment.action_mask else None
            steps = environment.step(_random_actions(environment, masks, rng))
        assert (steps.step_type == LAST).any()
        assert len(environment.take_episodes().returns) > 0
    finally:
        environment.close()


def test_the_simulator_keeps_gymnasiums_contract(here):
    environment = _made(_architecture("simulator"), num_envs=3)
    first = environment.reset().observation
    for age in range(1, 51):
        steps = environment.step(np.ones((3, 2), np.float32))
        distance = np.linalg.norm(steps.observation[:, :2], axis=1)
        np.testing.assert_allclose(steps.reward, -distance, rtol=1e-5)
        assert (steps.step_type == LAST).all() == (age == 50)
    assert (steps.discount == 1).all() and (steps.observation[:, :2] > first[:, :2]).all()
    steps = environment.step(np.ones((3, 2), np.float32))  # begins anew
    assert (steps.step_type == FIRST).all() and (steps.reward == 0).all()
    assert (np.abs(steps.observation[:, :2]) <= 1).all() and (steps.observation[:, 2:] == 0).all()


def test_a_time_limit_of_procgen_is_a_truncation(here):
    game = pytest.importorskip("procgen_games").Procgen("coinrun", levels=1)
    game.reset(seed=1)
    stand = 4
    for age in range(1, 1000):
        assert game.step(stand)[2:4] == (False, age == 999)
    game.reset()
    assert game.step(stand)[2:4] == (False, False)
    game = type(game)("coinrun", levels=1, limit_steps=2000)
    game.reset(seed=1)
    ends = [game.step(stand)[2:4] for _ in range(1000)]
    assert ends[-2:] == [(False, False), (True, False)]  # the game's own limit


@pytest.mark.slow
@pytest.mark.parametrize("name", _RECIPES)
def test_it_trains_to_its_return(name, tmp_path):
    command = [sys.executable, "-m", "binaries.train", f"--gin_file={name}.gin"]
    done = subprocess.run(
        [*command, f"--root_dir={tmp_path / 'run'}"],
        cwd=_HERE,
        env={**os.environ, "PYTHONPATH": python_path()},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(pathlib.Path(tmp_path / "run" / "result.json").read_text())
    assert result["reason"].startswith("solved: mean return")
