"""Reverb servers of unrolls, and unrolls that differ in every number."""

import contextlib
import functools
import threading

import numpy as np
import reverb
import tensorflow as tf
import tree

from tfdrl.agents.v_trace import VTraceAgent
from tfdrl.environments import gym_environment
from tfdrl.networks.actor_critic_networks import MlpActorCriticNetwork
from tfdrl.replay.unroll_dataset import unroll_dataset
from tfdrl.replay.unroll_tables import QUEUE, unroll_signature, unroll_tables
from tfdrl.replay.unroll_writer import UnrollWriter
from tfdrl.runtime import agent_factory
from tfdrl.topology import Address

T, UNITS = 3, 2


def recurrent_agent(environment):
    def factory(time_step_spec, action_spec, train_step_counter):
        return VTraceAgent(
            *(time_step_spec, action_spec),
            network=functools.partial(MlpActorCriticNetwork, layer_units=(), lstm_units=UNITS),
            optimizer=tf.keras.optimizers.SGD(),
            last_action_and_reward=True,
            train_step_counter=train_step_counter,
        )

    return agent_factory.make_agent(factory, environment)


def signature_of(id="tfdrl/Chain-v0", unroll_steps=T):
    with gym_environment(1, True, 0, id=id) as environment:
        policy = recurrent_agent(environment).collect_policy
        return unroll_signature(environment, policy, unroll_steps)


SIGNATURE = signature_of()


def unrolls(*numbers):
    """A batch of unrolls that differ in every number; version and reward[:, 0] are theirs."""

    def leaf(spec):
        shape = spec.shape.as_list()
        place = np.arange(np.prod(shape, dtype=int)).reshape(shape)
        return np.stack([place * 0.5 + n for n in numbers]).astype(spec.dtype.as_numpy_dtype)

    return tree.map_structure(leaf, SIGNATURE)._replace(version=np.array(numbers))


@contextlib.contextmanager
def serving(queue_capacity=100, replay_capacity=0):
    server = reverb.Server(unroll_tables(SIGNATURE, queue_capacity, replay_capacity), port=None)
    yield Address("localhost", server.port)
    server.stop()


def batches_of(address, batch_size, replayed=0):
    return iter(unroll_dataset(address, SIGNATURE, batch_size, replayed))


def table_info(address, table=QUEUE):
    return reverb.Client(str(address)).server_info(timeout=5)[table]


def to_numpy(batch):
    return tf.nest.map_structure(lambda leaf: leaf.numpy(), batch)


def check_experience(experience, sent):
    """The trajectory pairing: index t has step t, what was done at it, and what that led to."""
    steps = sent.steps
    np.testing.assert_array_equal(experience.step_type, steps.step_type)
    np.testing.assert_array_equal(experience.observation, steps.observation)
    np.testing.assert_array_equal(experience.next_step_type[:, :-1], steps.step_type[:, 1:])
    np.testing.assert_array_equal(experience.reward[:, :-1], steps.reward[:, 1:])
    np.testing.assert_array_equal(experience.discount[:, :-1], steps.discount[:, 1:])
    np.testing.assert_array_equal(experience.action[:, :-1], sent.action)
    np.testing.assert_array_equal(experience.policy_info["logits"][:, :-1], sent.info["logits"])
    assert {leaf.shape[:2] for leaf in tree.flatten(experience)} == {(len(sent.version), T + 1)}


def write_each(writer, numbers):
    for number in numbers:
        writer.write(unrolls(number))


@contextlib.contextmanager
def writers():
    """Gives `start(address, tables, timeout_secs)`; all are told to stop in the end."""
    stop = threading.Event()

    def start(address, tables=(QUEUE,), timeout_secs=20.0, **kwargs):
        return UnrollWriter(address, tables, timeout_secs, stop, **kwargs)

    start.stop = stop
    yield start
    stop.set()
