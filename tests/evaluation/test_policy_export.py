"""The exported policy is the best that was evaluated, whoever evaluated it."""

import json
import os
import pathlib
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.policies import tf_policy
from tf_agents.specs import tensor_spec
from tf_agents.trajectories import policy_step, time_step

from tfdrl.environments.registry import gym_environment
from tfdrl.errors import ConfigurationError
from tfdrl.evaluation.episodes import summarise
from tfdrl.evaluation.policy_export import PolicyExport
from tfdrl.evaluation.saved_players import from_saved_model


class _Constant(tf_policy.TFPolicy):
    """Always does what its one variable says."""

    def __init__(self, observation=tf.TensorSpec([1], tf.float32)):  # noqa: B008
        action = tensor_spec.BoundedTensorSpec([], tf.int32, 0, 9)
        super().__init__(time_step.time_step_spec(observation), action)
        self.choice = tf.Variable(0)

    def _variables(self):
        return [self.choice]

    def _action(self, time_step, policy_state, seed):
        batch = tf.shape(time_step.step_type)
        return policy_step.PolicyStep(tf.fill(batch, self.choice), policy_state, ())


def _evaluation(*returns):
    return summarise(np.float64(returns), version=7, frames=70, start_secs=0.0)


def _exported(directory):
    """What the policy on disk does."""
    policy = tf.saved_model.load(str(directory))
    now = time_step.restart(tf.zeros([1, 1]), 1)
    return int(policy.action(now, policy.get_initial_state(1)).action[0])


@pytest.fixture
def policy():
    return _Constant()


def test_only_a_better_policy_replaces_the_one_that_is_there(policy, tmp_path):
    export = PolicyExport(policy, tmp_path / "policy")
    assert export.best is None
    offered = [(2, (1.0, 3.0)), (3, (2.0, 2.0)), (4, (1.5,)), (5, (2.5,)), (6, (float("nan"),))]
    done = []
    for choice, returns in offered:
        policy.choice.assign(choice)
        done.append(export.offer(_evaluation(*returns)))
    assert done == [True, False, False, True, False]
    assert _exported(tmp_path / "policy") == 5 and export.best == 2.5
    found = json.loads((tmp_path / "policy" / "evaluation.json").read_text())
    assert (found["mean"], found["version"], found["episodes"]) == (2.5, 7, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["policy"]


def test_a_restarted_evaluator_knows_how_good_it_is(policy, tmp_path):
    policy.choice.assign(3)
    assert PolicyExport(policy, tmp_path / "policy").offer(_evaluation(10.0))
    again = PolicyExport(policy, tmp_path / "policy")
    policy.choice.assign(4)
    assert again.best == 10.0 and not again.offer(_evaluation(9.0))
    assert _exported(tmp_path / "policy") == 3
    assert again.offer(_evaluation(11.0)) and _exported(tmp_path / "policy") == 4


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"mean": null}', '{"mean": "x"}'])
def test_of_a_policy_without_its_evaluation_nothing_is_known(policy, tmp_path, text):
    (tmp_path / "policy").mkdir()
    (tmp_path / "policy" / "evaluation.json").write_text(text)
    export = PolicyExport(policy, tmp_path / "policy")
    assert export.best is None


_DAMAGES = {
    "no saved_model.pb": lambda there: (there / "saved_model.pb").rename(
        there / "saved_model.pb.tmp"
    ),
    "half of saved_model.pb": lambda there: os.truncate(there / "saved_model.pb", 300),
    "no variables": lambda there: shutil.rmtree(there / "variables"),
    "no index": lambda there: (there / "variables" / "variables.index").unlink(),
    "no data": lambda there: next(there.glob("variables/*.data-*")).unlink(),
    "half of the data": lambda there: os.truncate(next(there.glob("variables/*.data-*")), 2),
}


def test_half_a_policy_is_not_believed_to_be_good_and_replaced_by_the_next(
    policy, tmp_path, caplog
):
    exported = tmp_path / "whole"
    export = PolicyExport(policy, exported)
    assert export.offer(_evaluation(10.0))
    environment = gym_environment(id="CartPole-v1", num_envs=1, training=False, seed=0)
    for name, damage in _DAMAGES.items():
        damaged = tmp_path / name
        shutil.copytree(exported, damaged)
        damage(damaged)
        with pytest.raises(ConfigurationError) as raised:
            from_saved_model(damaged, environment)
        assert str(damaged) in str(raised.value), name
        assert PolicyExport(policy, damaged).best is None, name
        assert f"{damaged} is no whole policy" in caplog.text
    damage(exported)
    again = PolicyExport(policy, exported)
    policy.choice.assign(4)
    assert again.offer(_evaluation(1.0)) and _exported(exported) == 4
    assert PolicyExport(policy, exported).best == 1.0


class _KilledError(BaseException):
    """As a SIGKILL: nothing is done any more."""


def _dying(function, left):
    """The function until the last of so many calls of this and its siblings, where it dies."""

    def call(*arguments, **more):
        left[0] -= 1
        if left[0] == 0:
            raise _KilledError
        return function(*arguments, **more)

    return call


def test_a_kill_at_any_change_of_an_export_leaves_a_whole_policy(policy, tmp_path, monkeypatch):
    """The saver copies what one has saved: the next export is another policy, in no time."""
    whole, directory = {}, tmp_path / "policy"
    for mean in (10.0, 11.0):
        policy.choice.assign(int(mean))
        assert PolicyExport(policy, tmp_path / f"{mean:g}").offer(_evaluation(mean))
        whole[mean] = _variables(tmp_path / f"{mean:g}")
    (tmp_path / "11" / "evaluation.json").unlink()
    assert whole[10.0] != whole[11.0]
    number, killed = 0, set()
    while number == len(killed):  # until it has lived through its last change
        number += 1
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(tmp_path / "10", directory)
        export, left = PolicyExport(policy, directory), [number]
        export._saver = SimpleNamespace(save=lambda to: shutil.copytree(tmp_path / "11", to))
        with monkeypatch.context() as patched:
            patched.setattr(shutil, "rmtree", _dying(shutil.rmtree, left))
            for name in ("rename", "write_text"):
                patched.setattr(pathlib.Path, name, _dying(getattr(pathlib.Path, name), left))
            try:
                export.offer(_evaluation(11.0))
            except _KilledError:
                killed.add(number)
        assert whole[PolicyExport(policy, directory).best] == _variables(directory), number
        assert {path.name for path in tmp_path.iterdir()} == {"policy", "10", "11"}
    assert len(killed) > 4


def _variables(directory):
    return next(directory.glob("variables/*.data-*")).read_bytes()


def test_a_policy_that_could_not_be_written_is_offered_again(policy, tmp_path):
    (tmp_path / "file").write_text("")
    export = PolicyExport(policy, tmp_path / "file" / "policy")
    assert not export.offer(_evaluation(1.0)) and export.best is None


_ODD_KEYS = (
    ["position", "agent position", "arm/angle", "h\u00f6he", "eye-image", "1st", "a.b", "_x", ""],
    ["a b", "a_b", "a/b", "a_b_2"],
    ["a", "A"],
)


@pytest.mark.parametrize("keys", _ODD_KEYS, ids=str)
def test_keys_of_observations_may_be_any_words(keys, tmp_path):
    part = tf.TensorSpec([2], tf.float32)
    policy = _Constant(
        {**dict.fromkeys(keys, part), **({"a": {"b": part}} if "a/b" in keys else {})}
    )
    policy.choice.assign(4)
    assert PolicyExport(policy, tmp_path / "policy").offer(_evaluation(1.0))
    loaded = tf.saved_model.load(str(tmp_path / "policy"))
    spec = policy.time_step_spec.observation
    now = time_step.restart(tf.nest.map_structure(lambda s: tf.zeros([1, *s.shape]), spec), 1)
    assert int(loaded.action(now, ()).action[0]) == 4
    arguments = loaded.signatures["action"].structured_input_signature[1]
    assert len(arguments) == 3 + len(tf.nest.flatten(spec))


def test_names_of_a_signature_are_paths(policy, tmp_path):
    PolicyExport(policy, tmp_path / "policy").offer(_evaluation(1.0))
    signature = tf.saved_model.load(str(tmp_path / "policy")).signatures["action"]
    names = {"discount", "observation", "reward", "step_type"}
    arguments = signature.structured_input_signature[1]
    assert set(arguments) == {f"arg_0_{name}" for name in names}  # as TensorFlow writes "0/"
    assert set(signature.structured_outputs) == {"action"}
