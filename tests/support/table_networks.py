"""An actor-critic "network" that looks everything up, and agents with it: outputs are prescribed.

An observation is the number of a state; its distribution and its value are rows of tables.
"""

import numpy as np
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.networks import network
from tf_agents.specs import BoundedTensorSpec
from tf_agents.trajectories import time_step as ts

from tfdrl.agents import actor_critic_policy as acp
from tfdrl.agents.v_trace import VTraceAgent


def numbers(states):
    """The spec of an observation that is the number of one of so many states."""
    return BoundedTensorSpec([], tf.int32, 0, states - 1)


def discrete(actions):
    return BoundedTensorSpec([], tf.int32, 0, actions - 1)


def continuous(size):
    """Bounds far narrower than the Gaussians here, which nothing may clip to."""
    return BoundedTensorSpec([size], tf.float32, -0.1, 0.1)


def distribution_of(rows):
    """(logits [..., A],) -> Categorical; (mean, log of the deviation) [..., d] -> Gaussian."""
    if len(rows) == 1:
        return tfp.distributions.Categorical(logits=rows[0], dtype=tf.int32)
    normal = tfp.distributions.Normal(rows[0], tf.exp(rows[1]))
    return tfp.distributions.Independent(normal, reinterpreted_batch_ndims=1)


def parameters_of(rows):
    """The policy_info of such a distribution; rows of numpy."""
    return acp.parameters(distribution_of([tf.constant(row, tf.float32) for row in rows]))


class TableNetwork(network.Network):
    """`policy` is one table of logits, or two of means and logarithms of deviations."""

    def __init__(self, input_spec, action_spec, states, name="TableNetwork"):
        super().__init__(input_spec, state_spec=(), name=name)
        is_count = action_spec.dtype.is_integer
        width = int(action_spec.maximum) + 1 if is_count else action_spec.shape[0]
        self.policy = [tf.Variable(tf.zeros([states, width])) for _ in range(1 if is_count else 2)]
        self.table_of_values = tf.Variable(tf.zeros([states]))

    def call(self, observation, step_type=None, network_state=(), training=False):
        rows = [tf.gather(table, observation) for table in self.policy]
        return (distribution_of(rows), tf.gather(self.table_of_values, observation)), network_state

    def set(self, policy, values):
        for table, rows in zip(self.policy, policy):
            table.assign(rows)
        self.table_of_values.assign(values)


def make_agent(action_spec, network, observation_spec, **settings):
    """A VTraceAgent that takes plain gradient steps of rate 1, without clipping."""
    defaults = {
        "optimizer": tf.keras.optimizers.SGD(1.0),
        "gradient_clip_norm": None,
        "train_step_counter": tf.Variable(0, dtype=tf.int64),
    }
    agent = VTraceAgent(
        ts.time_step_spec(observation_spec),
        action_spec,
        network=network,
        **{**defaults, **settings},
    )
    agent.initialize()
    return agent


def table_agent(action_spec, policy, values, **settings):
    """An agent whose states have these rows: tables [S, ...] and values [S]."""
    size = np.shape(values)[0]
    network = settings.pop("network", TableNetwork)
    agent = make_agent(action_spec, lambda i, a: network(i, a, size), numbers(size), **settings)
    agent.network.set(policy, values)
    return agent


def loss_and_gradients(agent, experience, **kwargs):
    """What `agent.train` uses; zeros where the loss does not use a variable."""
    with tf.GradientTape() as tape:
        info = agent.loss(experience, training=True, **kwargs)
    variables = agent.network.trainable_weights
    gradients = tape.gradient(info.loss, variables, unconnected_gradients="zero")
    return info, [tf.convert_to_tensor(gradient).numpy() for gradient in gradients]
