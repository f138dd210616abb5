"""Any checkpoint of a run, and its exported policy, can be played, filmed and used elsewhere."""

import os
import pathlib
import shutil
import subprocess
import sys
import threading

import gin
import gymnasium
import numpy as np
import pytest
import tensorflow as tf
from gymnasium.envs.classic_control.cartpole import CartPoleEnv
from tf_agents.trajectories import policy_step

from tfdrl import configuration
from tfdrl.architectures import dqn
from tfdrl.environments import atari_environment, gym_environment
from tfdrl.errors import ConfigurationError, TfdrlError
from tfdrl.evaluation.episodes import play
from tfdrl.evaluation.saved_players import from_checkpoint
from tfdrl.evaluation.video import Video
from tfdrl.experiment import Experiment
from tfdrl.launch import run_directory
from tfdrl.launch.local import addresses
from tfdrl.launch.tools import evaluate
from tfdrl.topology import Address, Context

_REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
_BINDINGS = [
    "MlpQNetwork.layer_units = (16, 8)",
    "MlpQNetwork.dueling = False",
    "experiment.max_learner_steps = 40",
    "experiment.solved_return = None",
    "experiment.evaluation_episodes = 2",
    "dqn.min_replay_steps = 64",
    "dqn.evaluation_period_steps = 320",
    "dqn.checkpoint_period_steps = 160",
]


@pytest.fixture(scope="module")
def root_dir(tmp_path_factory):
    """A run of DQN on CartPole: checkpoints of several steps and an exported policy."""
    directory = tmp_path_factory.mktemp("run")
    loaded = configuration.load(["dqn/cartpole.gin"], _BINDINGS, tensorflow=True)
    run_directory.keep_configuration(directory, loaded.text)
    listen = Address("127.0.0.1", next(addresses.free_ports()))
    dqn.learner(Experiment.from_gin(), Context("learner", 0, 1, directory, listen))
    gin.clear_config()
    return directory


def _evaluate(root_dir, stop=None, **request):
    lines = []
    request = evaluate.Request(root_dir, **{"episodes": 3, **request})
    return evaluate.evaluate(request, stop or threading.Event(), lines.append), lines


def _values(path, layer, observation):
    """One layer of the Q-network, by numpy, from the checkpoint's variables."""
    reader = tf.train.load_checkpoint(str(path))

    def read(name):
        return reader.get_tensor(f"agent/_q_network/{layer}/{name}/.ATTRIBUTES/VARIABLE_VALUE")

    return observation @ read("kernel") + read("bias")


def _checkpoints(root_dir):
    return sorted(int(p.stem.split("-")[1]) for p in root_dir.glob("checkpoints/*.index"))


def test_a_checkpoint_acts_greedily_by_the_values_that_it_holds(root_dir):
    first, *_, last = _checkpoints(root_dir)
    assert first < last == 40
    configuration.load([str(root_dir / "config.gin")], [], tensorflow=True)
    make_agent = Experiment.from_gin().architecture.agent
    observation = np.random.default_rng(0).normal(size=(200, 4)).astype(np.float32)
    steps = (np.zeros(200, np.int32), np.zeros(200, np.float32), np.ones(200, np.float32))
    answers = []
    for step in (first, last):
        path = evaluate.find_checkpoint(root_dir / "checkpoints", str(step))
        with gym_environment(1, False, 0, id="CartPole-v1") as environment:
            player = from_checkpoint(make_agent, environment, path, step)
        hidden = np.maximum(_values(path, "_torso/0", observation), 0)
        values = _values(path, "_q_head/0", np.maximum(_values(path, "_torso/1", hidden), 0))
        action = player.act(*steps, observation, player.initial_state(200)).action
        clear = np.abs(values[:, 0] - values[:, 1]) > 1e-4
        np.testing.assert_array_equal(action[clear], values.argmax(axis=1)[clear])
        answers.append(values)
    assert not np.allclose(*answers)


def test_the_newest_checkpoint_is_played_unless_another_is_named(root_dir):
    first, *_, last = _checkpoints(root_dir)
    result, lines = _evaluate(root_dir, episodes=7, environments=3)
    assert (result.version, result.episodes) == (last, 7)
    assert result.min <= result.median <= result.max and result.standard_error > 0
    assert f"mean            {result.mean:.2f}" in lines
    assert f"checkpoint-{last} (learner step {last})" in lines[-1]
    prefix = root_dir / "checkpoints" / f"checkpoint-{first}"
    for name in (str(first), str(prefix), f"{prefix}.index"):
        assert evaluate.find_checkpoint(root_dir / "checkpoints", name) == prefix


def test_the_same_seed_gives_the_same_episodes(root_dir):
    one, same, other = (_evaluate(root_dir, seed=seed)[0] for seed in (5, 5, 6))
    assert one._replace(seconds=0) == same._replace(seconds=0)
    assert (one.mean, one.min, one.max) != (other.mean, other.min, other.max)


@pytest.mark.parametrize(
    ("request_fields", "error"),
    [
        ({"checkpoint": "7"}, "checkpoint=7: no such checkpoint in .*those of the steps .*40"),
        ({"checkpoint": "nowhere/ckpt-1"}, "checkpoint=nowhere/ckpt-1: no such checkpoint"),
        ({"policy": "nowhere"}, "nowhere holds no exported policy"),
        (
            {"gin_bindings": ["MlpQNetwork.layer_units = (16,)"]},
            "another network .*the agent has no agent/_q_network/_torso/1",
        ),
        (
            {"gin_bindings": ["MlpQNetwork.layer_units = (16, 8, 8)"]},
            "another network .*the checkpoint has no MlpQNetwork/",
        ),
        (
            {"gin_bindings": ["MlpQNetwork.layer_units = (16, 9)"]},
            r"another network .*shape \(8, 2\)",
        ),
        ({"gin_bindings": ["gym_environment.id = 'tfdrl/Chain-v0'"]}, "another network .*shape"),
    ],
)
def test_what_cannot_be_played_is_a_configuration_error(root_dir, request_fields, error):
    with pytest.raises(ConfigurationError, match=error):
        _evaluate(root_dir, **request_fields)


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_a_damaged_checkpoint_is_named(root_dir, tmp_path, suffix):
    shutil.copytree(root_dir, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "checkpoints" / f"checkpoint-40{suffix}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ConfigurationError, match=r"checkpoint-40 cannot be read: ."):
        _evaluate(tmp_path)


def test_directories_without_a_run_or_a_checkpoint(root_dir, tmp_path):
    with pytest.raises(ConfigurationError, match="there is none at all"):
        _evaluate(tmp_path)
    with pytest.raises(ConfigurationError, match=r"is no run: it has no config\.gin"):
        _evaluate(tmp_path, policy=str(root_dir / "policy"))
    (tmp_path / "config.gin").write_text("")
    (tmp_path / "version.txt").write_text("99.0.0\n")
    with pytest.raises(ConfigurationError, match=r"is the run of tfdrl 99\.0\.0"):
        _evaluate(tmp_path, policy=str(root_dir / "policy"))


class Moves(CartPoleEnv):
    """Changes directory, as simulators do that look for their own files."""

    def __init__(self, **kwargs):
        os.chdir("/")
        super().__init__(**kwargs)


def test_paths_mean_what_they_meant_before_the_environment_moved(root_dir, monkeypatch):
    gymnasium.register("tests/Moves-v0", entry_point=Moves, max_episode_steps=500)
    monkeypatch.chdir(root_dir.parent)
    here = pathlib.Path(root_dir.name)
    moves = ["gym_environment.id = 'tests/Moves-v0'"]
    for more in ({}, {"policy": str(here / "policy")}):
        monkeypatch.chdir(root_dir.parent)
        evaluation, _ = _evaluate(here, gin_bindings=moves, episodes=1, environments=1, **more)
        assert evaluation.episodes == 1 and os.getcwd() == "/"


def test_told_to_stop_there_is_no_result(root_dir):
    stop = threading.Event()
    stop.set()
    with pytest.raises(TfdrlError, match="after 0 of 3 episodes: no result"):
        _evaluate(root_dir, stop=stop)


def test_the_exported_policy_plays_like_its_checkpoint(root_dir):
    # The run evaluates, exports and saves at agent step 320: learner step (320 - 64) / 8 = 32.
    request = {"episodes": 10, "environments": 5, "seed": 3}
    exported, lines = _evaluate(root_dir, policy=str(root_dir / "policy"), **request)
    saved, _ = _evaluate(root_dir, checkpoint="32", **request)
    assert saved._replace(version=-1, seconds=0) == exported._replace(seconds=0)
    assert "exported policy" in lines[-1]
    with pytest.raises(ConfigurationError, match=r"is not for this environment .*float32"):
        _evaluate(
            root_dir,
            policy=str(root_dir / "policy"),
            gin_bindings=["gym_environment.id = 'tfdrl/Catch-v0'"],
        )


def test_the_example_of_getting_started_needs_tensorflow_alone(root_dir, tmp_path):
    page = (_REPOSITORY / "docs" / "getting_started.md").read_text()
    program = page.partition("<!-- policy-example -->")[2].split("```python\n")[1].split("```")[0]
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "cartpole").symlink_to(root_dir)
    program += "\nimport sys\nprint({'tfdrl', 'tf_agents'} & set(sys.modules))\n"
    done = _run(["-c", program], tmp_path, python_path="")
    assert done.returncode == 0, done.stderr
    words = done.stdout.split()
    assert words[0] == "return:" and 8 <= float(words[1]) <= 500
    assert words[2] == "set()"


def _run(arguments, cwd, python_path=str(_REPOSITORY)):
    environment = {**os.environ, "PYTHONPATH": python_path}
    how = {"capture_output": True, "text": True, "timeout": 100}
    return subprocess.run([sys.executable, *arguments], cwd=cwd, env=environment, **how)


def _frames(path):
    import imageio.v2 as imageio

    with imageio.get_reader(path) as reader:
        return [np.array(frame) for frame in reader], reader.get_meta_data()["fps"]


def test_the_video_holds_the_first_episode(root_dir, tmp_path):
    pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / "films" / "pole.mp4"
    result, lines = _evaluate(root_dir, episodes=3, video=str(path))
    assert f"recording episode 1 of 3 to {path}" in lines
    assert result.episodes == 3
    pictures, fps = _frames(path)
    returned = float(lines[-1].rsplit("(return ", 1)[1].rstrip(")"))
    assert len(pictures) == returned + 1  # reward 1 a step; the start and every step
    assert (pictures[0].shape, fps) == ((400, 600, 3), 50)
    assert np.abs(pictures[0].astype(int) - pictures[-1]).max() > 50  # the pole fell


def test_what_cannot_be_filmed(root_dir, tmp_path, monkeypatch):
    with pytest.raises(ConfigurationError, match=r"must end in \.mp4"):
        _evaluate(root_dir, video=str(tmp_path / "pole.gif"))
    with pytest.raises(ConfigurationError, match="Chain-v0' so that it can be drawn"):
        chain = ["gym_environment.id = 'tfdrl/Chain-v0'"]
        _evaluate(root_dir, video=str(tmp_path / "a.mp4"), gin_bindings=chain)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)  # as if it were not installed
    with pytest.raises(ConfigurationError, match=r'pip install "tfdrl\[video\]"'):
        _evaluate(root_dir, video=str(tmp_path / "a.mp4"))
    assert not list(tmp_path.iterdir())


def test_atari_is_filmed_in_colour(tmp_path):
    pytest.importorskip("ale_py")
    pytest.importorskip("imageio_ffmpeg")
    how = {"max_episode_frames": 120, "noop_max": 0, "clip_reward": None, "render": True}
    with atari_environment(1, False, 0, id="Pong", **how) as environment:
        with Video(tmp_path / "pong.mp4", environment.steps_per_second) as video:

            def act(step_type, *unused):
                return tf.nest.map_structure(tf.constant, _policy_step(step_type))

            returns = play(
                environment, act, lambda n: (), 1, on_step=lambda _: video.add(environment.render())
            )
    pictures, fps = _frames(tmp_path / "pong.mp4")
    assert len(returns) == 1
    assert (len(pictures), fps) == (31, 15)  # 30 steps of 4 frames, and the start
    assert pictures[0].shape == (210, 160, 3)
    assert np.ptp(pictures[-1].astype(int), axis=2).max() > 50  # not grey


def _policy_step(step_type):
    return policy_step.PolicyStep(np.full(len(step_type), 2, np.int32), (), ())


def test_the_command_prints_the_result_and_nothing_else(root_dir, tmp_path):
    arguments = [f"--root_dir={root_dir}", "--episodes=4", "--checkpoint=40"]
    done = _run(["-m", "binaries.evaluate", *arguments], tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    said = [s for s in done.stdout.splitlines() if not s.startswith(("loading ", "checkpoint "))]
    assert len(said) < len(done.stdout.splitlines())
    names = [line[:16].strip() for line in said if line[0] != " "]
    assert names == ["mean", "median", "standard error", "min", "max", "episodes", "of"]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["--root_dir=nothing"], "no checkpoint in nothing/checkpoints; there is none at all"),
        ([], "--root_dir is missing"),
        (["--policy=p", "--checkpoint=4"], "not both"),
        (["--root_dir=a", "--episode=3"], "did you mean --episodes?"),
    ],
)
def test_the_command_exits_with_2_at_once(tmp_path, arguments, error):
    done = _run(["-m", "binaries.evaluate", *arguments], tmp_path)
    assert done.returncode == 2
    assert error in done.stderr and done.stderr.count("\n") == 1
