"""A user's package, outside tfdrl, is trained through the real thing by naming it in gin."""

import json
import pathlib

import gin
import preloaded
import pytest
import tensorflow as tf

from tfdrl import configuration
from tfdrl.architectures import dqn
from tfdrl.experiment import Experiment
from tfdrl.launch.local import addresses
from tfdrl.launch.tools import evaluate
from tfdrl.topology import Address, Context

_HERE = pathlib.Path(__file__).parent
_REPOSITORY = _HERE.parents[1]
_SHORT = [
    "experiment.max_learner_steps = 20",
    "experiment.solved_return = None",
    "experiment.evaluation_episodes = 4",
    "dqn.min_replay_steps = 64",
]


@pytest.fixture(autouse=True)
def in_the_users_directory(monkeypatch):
    monkeypatch.chdir(_HERE)
    monkeypatch.syspath_prepend(str(_HERE))
    yield
    gin.clear_config()


def _variables(root_dir):
    """Shapes of the checkpoint's variables by name."""
    newest = evaluate.find_checkpoint(root_dir / "checkpoints", "")
    variables = tf.train.list_variables(str(newest))
    return {name.split("/.ATTRIBUTES")[0]: shape for name, shape in variables}


def _result(root_dir):
    return json.loads((root_dir / "result.json").read_text())


# name: (in gin's operative config because it was really called, a variable and its shape)
_CASES = {
    "py_environment": (
        "PyCorridor.length = 9",
        ("agent/_q_network/_torso/0/kernel", [9, 128]),
    ),
    "model": (
        "my_model.units = 32",
        ("agent/_q_network/_model/layer_with_weights-0/kernel", [7, 32]),
    ),
    "network": ("MyNetwork.units = 48", ("agent/_q_network/_hidden/kernel", [7, 48])),
    "q_network": ("QNetwork.fc_layer_params = (40,)", ("agent/_q_network/_encoder/", [7, 40])),
    "agent": ("MyAgent.learning_rate = 0.05", ("agent/_network/_hidden/kernel", [7, 40])),
    "dqn_agent": ("DqnAgent.target_update_period = 50", ("agent/_q_network/_encoder/", [7, 40])),
}


@pytest.mark.parametrize("name", _CASES)
def test_dqn_trains_what_a_gin_file_names(name, tmp_path):
    called, (prefix, shape) = _CASES[name]
    evaluates = name == "agent"  # its policy is also exported
    bindings = [*_SHORT, f"dqn.evaluation_period_steps = {160 if evaluates else 10**6}"]
    loaded = configuration.load([f"{name}.gin"], bindings, tensorflow=True)
    listen = Address("127.0.0.1", next(addresses.free_ports()))
    context = Context("learner", 0, 1, tmp_path, listen, experiment=loaded.digest)
    dqn.learner(Experiment.from_gin(), context)

    assert called in gin.operative_config_str()
    assert _result(tmp_path)["learner_steps"] == 20
    assert _result(tmp_path)["frames"] >= 64 + 20 * 8
    found = [s for variable, s in _variables(tmp_path).items() if variable.startswith(prefix)]
    assert shape in found
    if evaluates:
        policy = tf.saved_model.load(str(tmp_path / "policy"))
        assert [7, 40] in [variable.shape.as_list() for variable in policy.model_variables]
        assert _result(tmp_path)["evaluation"]["episodes"] == 4


def test_apex_trains_an_agent_and_an_environment_of_ones_own(tmp_path):
    bindings = [
        "experiment.max_learner_steps = 200",
        "experiment.solved_return = None",
        "experiment.evaluation_episodes = 4",
        "apex.actors = 1",
        "apex.evaluation_period_secs = 1.0",
        "replay_table.min_size = 200",
    ]
    arguments = ["--gin_file=apex.gin", f"--root_dir={tmp_path}"]
    arguments += [f"--gin_bindings={text}" for text in bindings]
    done = preloaded.run("binaries.train", arguments, _HERE)
    assert done.returncode == 0, done.stdout
    assert _result(tmp_path)["learner_steps"] == 200
    assert _result(tmp_path)["frames"] >= 200
    assert _variables(tmp_path)["agent/_network/_hidden/kernel"] == [7, 40]

    lines = []
    request = evaluate.Request(tmp_path, episodes=5)
    evaluation = evaluate.evaluate(request, Context("", 0, 1, tmp_path).stop, lines.append)
    assert (evaluation.episodes, evaluation.version) == (5, 200)
    assert evaluation.mean == 1.0  # the corridor's best: 200 steps are plenty


# as _CASES
_ACTOR_CRITICS = {
    "actor_critic": (
        "my_actor_critic.units = 32",
        ("agent/_network/_model/layer_with_weights-0/kernel", [7, 32]),
    ),
    "actor_and_critic": (
        "ActorDistributionRnnNetwork.lstm_size = (16,)",
        ("agent/_network/_critic/_encoder/", [7, 40]),
    ),
}


@pytest.mark.parametrize(
    "name", ["actor_critic", pytest.param("actor_and_critic", marks=pytest.mark.slow)]
)
def test_impala_trains_an_actor_critic_of_ones_own(name, tmp_path):
    called, (prefix, shape) = _ACTOR_CRITICS[name]
    bindings = [
        "experiment.max_learner_steps = 20",
        "experiment.solved_return = None",
        "experiment.evaluation_episodes = 4",
        "impala.actors = 1",
        "impala.environments_per_actor = 4",
        "impala.batch_size = 4",
    ]
    arguments = [f"--gin_file={name}.gin", f"--root_dir={tmp_path}"]
    arguments += [f"--gin_bindings={text}" for text in bindings]
    done = preloaded.run("binaries.train", arguments, _HERE)
    assert done.returncode == 0, done.stdout
    assert _result(tmp_path)["learner_steps"] == 20
    (operative,) = (tmp_path / "checkpoints").glob("**/operative*.gin")
    assert called in operative.read_text()
    found = [s for variable, s in _variables(tmp_path).items() if variable.startswith(prefix)]
    assert shape in found


def test_every_snippet_of_the_documentation_is_a_file_that_is_tested():
    text = (_REPOSITORY / "docs" / "extending.md").read_text()
    parts = text.split("```")
    assert len(parts) % 2 == 1
    shown = set()
    for before, block in zip(parts[::2], parts[1::2]):
        body = block.partition("\n")[2]
        label = before.rstrip().splitlines()[-1]
        if body.startswith("tfdrl-"):
            gin_file = body.split("--gin_file=")[1].split()[0]
            assert (_HERE / gin_file).is_file()
            continue
        if not label.startswith("`"):  # some lines for a gin file, of which there is none
            configuration.check(["dqn/cartpole.gin"], body.splitlines())
            continue
        name = label.strip("`:")
        assert body == (_HERE / name).read_text(), name
        shown.add(name)
    files = [*_HERE.glob("*.gin"), *(_HERE / "my_package").glob("*.py")]
    there = {path.relative_to(_HERE).as_posix() for path in files}
    assert shown == there - {"my_package/__init__.py"}


def test_a_seventh_architecture_is_one_file(tmp_path):
    """A2C: every update is of what the newest policy did, of all workers."""
    bindings = ["experiment.max_learner_steps = 30", "experiment.solved_return = None"]
    arguments = ["--gin_file=a2c.gin", f"--root_dir={tmp_path}"]
    arguments += [f"--gin_bindings={text}" for text in bindings]
    done = preloaded.run("binaries.train", arguments, _HERE)
    assert done.returncode == 0, done.stdout
    result, frames_per_update = _result(tmp_path), 2 * 8 * 5
    assert result["learner_steps"] == 30
    # Nobody acts ahead of the parameters: one more rollout has begun, at most.
    # A reset, at least every fourth step, is no frame.
    assert 0.7 * 30 * frames_per_update < result["frames"] <= 31 * frames_per_update
    assert len((_HERE / "my_package" / "a2c.py").read_text().splitlines()) < 170


@pytest.mark.slow
def test_ppo_in_the_seventh_architecture_solves_cartpole(tmp_path):
    arguments = ["--gin_file=ppo.gin", f"--root_dir={tmp_path}"]
    done = preloaded.run("binaries.train", arguments, _HERE, timeout=400)
    assert done.returncode == 0, done.stdout
    assert _result(tmp_path)["evaluation"]["mean"] >= 475.0
