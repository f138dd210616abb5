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
from tfdrl.experience.unroll_batches import to_batch
from tfdrl.networks.q_networks import MlpQNetwork
from tfdrl.runtime import agent_factory
from tfdrl.runtime.compiled import act_function
from tfdrl.types import TimeSteps, Unrolls


@pytest.fixture(scope="module")
def act():
    factory = functools.partial(NStepDqnAgent, network=MlpQNetwork, optimizer=optimizers.sgd())
    with gym_environment(2, False, 0, id="CartPole-v1") as environment:
        agent = agent_factory.make_agent(factory, environment)
        run, time_step = act_function(agent.policy), environment.reset()
        yield lambda: run(*time_step, ()).action.numpy()


def _keeps_blocks(function, times):
    """Whether each call keeps some of Python's allocator.

    It does if it does so in each of three rounds: other threads allocate, too. Without the cure
    each tensor keeps two.
    """
    for _ in range(100):
        function()
    return all(_kept_blocks(function, times) >= 0.5 for _ in range(3))


def _kept_blocks(function, times):
    gc.collect()
    before = sys.getallocatedblocks()
    for _ in range(times):
        function()
    gc.collect()
    return (sys.getallocatedblocks() - before) / times


def test_acting_keeps_nothing(act):
    assert not _keeps_blocks(act, 300)


def test_zeros_and_batches_of_unrolls_keep_nothing(act):
    observation = np.ones((4, 6, 2), np.float32)
    steps = TimeSteps(np.ones((4, 6), np.int32), *np.ones((2, 4, 6), np.float32), observation)
    action = np.ones((4, 5), np.int64)
    unrolls = Unrolls(steps, action, (), (), version=np.ones(4), time_secs=np.ones(4))
    assert not _keeps_blocks(lambda: tf.zeros([2]), 300)
    assert not _keeps_blocks(lambda: to_batch(unrolls), 100)


def test_a_second_gradient_of_a_cross_entropy_is_what_it_was(act):
    """By finite differences of the first."""
    labels, logits = tf.constant([[0.3, 0.7]]), tf.Variable([[0.5, -1.0]])

    def first():
        with tf.GradientTape() as tape:
            loss = tf.nn.softmax_cross_entropy_with_logits(labels, logits)
        return tape.gradient(loss, logits)

    with tf.GradientTape() as tape:
        slope = first()[0, 0]
    second = tape.gradient(slope, logits).numpy()[0, 0]
    before = first().numpy()[0, 0]
    logits.assign_add([[1e-2, 0.0]])
    assert second == pytest.approx((first().numpy()[0, 0] - before) / 1e-2, rel=0.02)
    assert second > 0.1


def test_tensors_are_what_they_were(act):
    assert not _keeps_blocks(lambda: tf.constant(np.ones(3)) + 1.0, 300)
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
