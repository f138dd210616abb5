"""Tensors that Python has seen cost no memory once they are gone."""

import functools
import gc
import sys
import weakref

import numpy as np
import pytest
import tensorflow as tf

from tfdrl.agents import optimizers
from tfdrl.agents.n_step_dqn import NStepDqnAgent
from tfdrl.environments import gym_environment
from tfdrl.networks.q_networks import MlpQNetwork
from tfdrl.runtime import agent_factory
from tfdrl.runtime.compiled import act_function


@pytest.fixture(scope="module")
def act():
    factory = functools.partial(NStepDqnAgent, network=MlpQNetwork, optimizer=optimizers.sgd())
    with gym_environment(2, False, 0, id="CartPole-v1") as environment:
        agent = agent_factory.make_agent(factory, environment)
        run, time_step = act_function(agent.policy), environment.reset()
        yield lambda: run(*time_step, ()).action.numpy()


def _kept_blocks(function, times):
    """Of Python's allocator, for each call."""
    for _ in range(300):
        function()
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(times):
        function()
    gc.collect()
    return (sys.getallocatedblocks() - before) / times


def test_acting_keeps_nothing(act):
    assert _kept_blocks(act, 1000) < 0.5  # without the cure one for each tensor: 2


def test_tensors_are_what_they_were(act):
    assert _kept_blocks(lambda: tf.constant(np.ones(3)) + 1.0, 1000) < 0.5
    tensor = tf.constant([1.0, 2.0])
    assert tensor.__dict__ == {}
    tensor.note = "mine"
    assert tensor.note == "mine" and tf.constant(0.0).__dict__ == {}
    assert not hasattr(tf.constant(0.0), "note")
    with pytest.raises(ValueError, match="convert"):
        tf.constant(object())
    gone = weakref.ref(tensor)
    del tensor
    assert gone() is None
