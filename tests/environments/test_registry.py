"""The factories: wrong settings say what would be right; no TensorFlow; gin files parse."""

import pathlib
import subprocess
import sys

import gin
import gymnasium
import numpy as np
import pytest

from tfdrl.environments import atari_environment, gym_environment
from tfdrl.environments.atari import AtariEnvironment
from tfdrl.environments.vectorized import VectorizedEnvironment
from tfdrl.errors import ConfigurationError

GIN_FILES = pathlib.Path(__file__).parents[2] / "gin" / "environments"


@pytest.fixture(autouse=True)
def clear_gin():
    yield
    gin.clear_config()


def test_unknown_id_names_the_nearest():
    with pytest.raises(ConfigurationError, match=r"'CartPol-v1'.*CartPole-v1"):
        gym_environment(1, True, 0, id="CartPol-v1")
    with pytest.raises(ConfigurationError, match=r"nearest registered ids.*ALE/Pong-v5"):
        atari_environment(1, True, 0, id="Pongg")
    with pytest.raises(ConfigurationError, match="no_such_module"):
        gym_environment(1, True, 0, id="no_such_module:Game-v0")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"id": "CartPole-v1", "num_envs": 0}, "at least 1 environment"),
        ({"id": "CartPole-v1", "vectorization": "threads"}, "choose one of auto, sync, async"),
        ({"id": "CartPole-v1", "kwargs": {"gravity": 1}}, "CartPole-v1.*gravity"),
        ({"id": "CartPole-v1", "clip_reward": 0.0}, "positive bound"),
    ],
)
def test_wrong_settings_of_gym_environment(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        gym_environment(**{"num_envs": 1, "training": True, "seed": 0, **settings})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"backend": "envpool"}, "choose one of native, gymnasium"),
        ({"frame_stack": 3}, "must be 1, 2, 4 or 8"),
        ({"frame_skip": 0}, r"frame_skip = 0; at least 1"),
        ({"repeat_action_probability": 1.5}, r"lies in \[0, 1\]"),
        ({"threads": 0}, "at least 1"),
        ({"id": "tfdrl/Catch-v0"}, "not an Atari game"),
    ],
)
def test_wrong_settings_of_atari_environment(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        atari_environment(1, True, 0, **{"id": "Pong", **settings})


def test_missing_ale_py_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ale_py", None)  # what import does when it is not installed
    with pytest.raises(ConfigurationError, match=r'pip install "tfdrl\[atari\]"'):
        atari_environment(1, True, 0, id="Pong")
    with pytest.raises(ConfigurationError, match=r'pip install "tfdrl\[atari\]"'):
        gym_environment(1, True, 0, id="ALE/Pong-v5")


def test_kwargs_reach_the_environment():
    env = gym_environment(1, True, 0, id="tfdrl/Chain-v0", kwargs={"num_states": 9})
    assert env.observation_spec.shape == (9,)


def test_id_with_a_module_imports_it(tmp_path, monkeypatch):
    (tmp_path / "users_environments.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Users-v0', entry_point='tfdrl.environments.toys:Catch')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    env = gym_environment(1, True, 0, id="users_environments:Users-v0")
    assert env.reset().observation.shape == (1, 10, 5)
    del gymnasium.registry["Users-v0"]


@pytest.mark.parametrize("file", sorted(GIN_FILES.glob("*.gin")), ids=lambda file: file.stem)
def test_gin_file_builds_its_environment(file):
    gin.parse_config_file(str(file))
    factory, kind = {
        "pong": (atari_environment, AtariEnvironment),
    }.get(file.stem, (gym_environment, VectorizedEnvironment))
    with factory(num_envs=2, training=True, seed=0) as env:
        assert isinstance(env, kind)
        steps = env.reset()
        steps = env.step(np.zeros((2, *env.action_spec.shape), env.action_spec.dtype))
        assert steps.observation.shape == (2, *env.observation_spec.shape)
        assert steps.observation.dtype == env.observation_spec.dtype


def test_there_are_gin_files():
    assert {file.stem for file in GIN_FILES.glob("*.gin")} >= {"cartpole", "catch", "pong"}


def test_environments_do_not_load_tensorflow():
    script = (
        "import sys, numpy as np, tfdrl.environments as environments\n"
        "env = environments.atari_environment(num_envs=1, training=True, seed=0, id='Pong')\n"
        "env.reset(); env.step(np.zeros(1, np.int32))\n"
        "environments.gym_environment(num_envs=1, training=True, seed=0, id='CartPole-v1')\n"
        "loaded = {'tensorflow', 'tf_agents', 'jax', 'torch'} & set(sys.modules)\n"
        "sys.exit(f'loaded {loaded}' if loaded else 0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=GIN_FILES.parents[1],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
