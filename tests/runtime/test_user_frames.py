"""A fault in a user's model shows the user's own line; a precision without losses is refused."""

import pathlib
import sys

import pytest
import tensorflow as tf
from tf_agents.trajectories import time_step

from tfdrl.environments.registry import gym_environment
from tfdrl.errors import EXIT_FAILED, ConfigurationError, TfdrlError
from tfdrl.launch import role
from tfdrl.runtime import agent_factory
from tfdrl.runtime.user_frames import own_frame
from tfdrl.topology import Context, Role


def _broken_model():
    return tf.keras.layers.Dense(3)(tf.zeros([2]))  # needs two axes


def test_the_innermost_line_of_the_user_s_own_is_found():
    with pytest.raises(ValueError) as error:
        _broken_model()
    frame = own_frame(error.value)
    assert frame.startswith(f"{__file__}:") and "in _broken_model: return tf.keras.layers" in frame


def test_a_fault_of_libraries_alone_has_none():
    with pytest.raises(Exception) as error:
        exec(compile("import json; json.loads('{')", "<text>", "exec"))
    found = own_frame(error.value)
    assert "json" not in found.rpartition(":")[0].rpartition("/")[2]


def test_a_role_shows_it_first_and_last(capsys):
    broken = Role("learner", "test_user_frames:call_of_a_role")
    assert role.call(broken, None, None, {}) == EXIT_FAILED
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("ValueError: ") and "in _broken_model" in lines[0]
    assert lines[1].startswith("Traceback")
    assert lines[-1].startswith("tfdrl learner: ValueError: ")


@pytest.mark.parametrize("code", [0, 2, "no licence"])
def test_an_environment_that_exits_has_not_ended_the_role(code, monkeypatch):
    """Neither well, nor with an exit code that means something."""
    monkeypatch.setitem(globals(), "_broken_model", lambda: sys.exit(code))
    broken = Role("learner", "test_user_frames:call_of_a_role")
    context = Context("learner", 0, 1, pathlib.Path())
    with pytest.raises(TfdrlError, match=r"sys.exit\(.*\) was called \(at .*test_user_fr") as error:
        role.call(broken, None, context, {})
    assert repr(code) in str(error.value) and error.value.exit_code == EXIT_FAILED


@pytest.mark.parametrize("code", [None, 0])
def test_one_that_exits_once_the_role_is_to_stop_has(code, monkeypatch):
    monkeypatch.setitem(globals(), "_broken_model", lambda: sys.exit(code))
    context = Context("learner", 0, 1, pathlib.Path())
    context.stop.set()
    assert role.call(Role("learner", "test_user_frames:call_of_a_role"), None, context, {}) == 0


def call_of_a_role(experiment, context):
    _broken_model()


def test_an_agent_that_cannot_be_built_says_where():
    def factory(time_step_spec, action_spec, train_step_counter):
        _broken_model()

    with gym_environment(num_envs=1, training=True, seed=1, id="CartPole-v1") as environment:
        with pytest.raises(ConfigurationError, match="in _broken_model"):
            agent_factory.make_agent(factory, environment)


def test_another_precision_than_float32_is_refused():
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        with gym_environment(num_envs=1, training=True, seed=1, id="CartPole-v1") as environment:
            with pytest.raises(ConfigurationError, match="global policy is mixed_float16"):
                agent_factory.make_agent(time_step.TimeStep, environment)
    finally:
        tf.keras.mixed_precision.set_global_policy("float32")
