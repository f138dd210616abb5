"""Torsos in bfloat16: what is float32 all the same, and how far results are from float32's."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import BoundedTensorSpec
from tf_agents.trajectories import StepType, time_step, trajectory

from tfdrl.agents.n_step_dqn import NStepDqnAgent
from tfdrl.agents.v_trace import VTraceAgent
from tfdrl.environments import gym_environment
from tfdrl.errors import ConfigurationError
from tfdrl.experience.transitions import to_trajectory
from tfdrl.networks import actor_critic_networks as actor_critic
from tfdrl.networks import precision, q_networks, recurrent_q_networks
from tfdrl.networks.precision import torsos_in
from tfdrl.runtime import agent_factory
from tfdrl.types import Transitions

ACTIONS, BATCH, LENGTH = 4, 6, 5
IMAGE = BoundedTensorSpec([36, 36, 2], tf.uint8, 0, 255)
VECTOR = tf.TensorSpec([7], tf.float32)
ACTION = BoundedTensorSpec([], tf.int32, 0, ACTIONS - 1)
#: Of bfloat16: half the distance from 1 to the next number.
EPSILON = 2.0**-8

NETWORKS = {
    "mlp": (actor_critic.MlpActorCriticNetwork, VECTOR),
    "nature": (functools.partial(actor_critic.NatureActorCriticNetwork, lstm_units=8), IMAGE),
    "deep": (functools.partial(actor_critic.DeepActorCriticNetwork, channels=(4, 8)), IMAGE),
    "mlp q": (functools.partial(q_networks.MlpQNetwork, head_units=8, dueling=True), VECTOR),
    "nature q": (q_networks.NatureQNetwork, IMAGE),
    "nature lstm q": (recurrent_q_networks.NatureRecurrentQNetwork, IMAGE),
}


def built(name, compute_dtype):
    make, spec = NETWORKS[name]
    tf.keras.utils.set_random_seed(5)
    with torsos_in(compute_dtype):
        network = make(spec, ACTION)
    network.create_variables()
    return network


def observations(spec, *outer):
    random = np.random.default_rng(0)
    shape = (*outer, *spec.shape)
    if spec.dtype == tf.uint8:
        return random.integers(0, 256, shape, np.uint8)
    return random.normal(size=shape).astype(np.float32)


def outputs(name, network):
    """All that it gives, as arrays: logits or values, states."""
    inputs = observations(NETWORKS[name][1], BATCH)
    found, state = network(
        inputs,
        step_type=np.full(BATCH, StepType.MID),
        network_state=network.get_initial_state(BATCH),
    )
    parts = [found[0].logits, found[1]] if isinstance(found, tuple) else [found]
    assert all(part.dtype == tf.float32 for part in tf.nest.flatten([parts, state]))
    return [part.numpy() for part in tf.nest.flatten([parts, state])]


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_and_variables_are_float32_and_near(name, tmp_path):
    exact, rounded = built(name, "float32"), built(name, "bfloat16")
    specs = [[(v.shape, v.dtype) for v in n.variables] for n in (exact, rounded)]
    assert specs[0] == specs[1] and {dtype for _, dtype in specs[0]} == {tf.float32}
    path = tf.train.Checkpoint(network=exact).save(tmp_path / "checkpoint")
    for variable in rounded.variables:
        variable.assign(tf.zeros_like(variable))
    tf.train.Checkpoint(network=rounded).restore(path).assert_consumed()
    for near, right in zip(outputs(name, rounded), outputs(name, exact)):
        # A few layers, each of which rounds what it gets.
        np.testing.assert_allclose(near, right, atol=8 * EPSILON * np.abs(right).max())
        assert np.abs(near - right).max() > 0.0


def v_trace():
    random = np.random.default_rng(1)
    outer = (BATCH, LENGTH + 1)
    specs = time_step.time_step_spec(IMAGE), ACTION
    agent = VTraceAgent(
        *specs,
        network=actor_critic.ShallowActorCriticNetwork,
        optimizer=tf.keras.optimizers.SGD(),
        reduction="mean",
    )
    logits = {"logits": random.normal(size=(*outer, ACTIONS)).astype(np.float32)}
    info = tf.nest.pack_sequence_as(agent.collect_data_spec.policy_info, tf.nest.flatten(logits))
    experience = trajectory.Trajectory(
        step_type=np.ones(outer, np.int32),
        observation=observations(IMAGE, *outer),
        action=random.integers(0, ACTIONS, outer).astype(np.int32),
        policy_info=info,
        next_step_type=np.ones(outer, np.int32),
        reward=random.normal(size=outer).astype(np.float32),
        discount=np.ones(outer, np.float32),
    )
    return agent, experience, agent.network


def n_step_dqn():
    random = np.random.default_rng(1)
    agent = NStepDqnAgent(
        time_step.time_step_spec(IMAGE),
        ACTION,
        network=functools.partial(q_networks.NatureQNetwork, head_units=32),
        optimizer=tf.keras.optimizers.SGD(),
    )
    agent.initialize()
    transitions = Transitions(
        observations(IMAGE, BATCH),
        random.integers(0, ACTIONS, BATCH).astype(np.int32),
        random.normal(size=BATCH).astype(np.float32),
        np.full(BATCH, 0.9, np.float32),
        observations(IMAGE, BATCH),
    )
    return agent, to_trajectory(transitions), agent.q_network


@pytest.mark.parametrize("make", [v_trace, n_step_dqn])
def test_losses_and_gradients_agree(make):
    losses, gradients = [], []
    for compute_dtype in ("float32", "bfloat16"):
        tf.keras.utils.set_random_seed(5)
        with torsos_in(compute_dtype):
            agent, experience, network = make()
        experience = tf.nest.map_structure(tf.convert_to_tensor, experience)
        with tf.GradientTape() as tape:
            loss = agent.loss(experience, training=True).loss
        assert loss.dtype == tf.float32
        found = tape.gradient(loss, network.trainable_weights)
        assert {gradient.dtype for gradient in found} == {tf.float32}
        losses.append(float(loss))
        gradients.append([gradient.numpy() for gradient in found])
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[1], losses[0], rtol=4 * EPSILON)
    exact, rounded = gradients
    last = np.linalg.norm(rounded[-2] - exact[-2]) / np.linalg.norm(exact[-2])
    assert 0.0 < last < 4 * EPSILON
    # Below a ReLU it is more than rounding: units near zero change sides.
    exact, rounded = (np.concatenate([g.ravel() for g in each]) for each in gradients)
    assert np.dot(exact, rounded) > 0.95 * np.linalg.norm(exact) * np.linalg.norm(rounded)


def test_what_cannot_be_had_is_refused():
    with pytest.raises(ConfigurationError, match="'float16' must be 'float32' or 'bfloat16'"):
        with torsos_in("float16"):
            pass

    def without_torso(time_step_spec, action_spec, train_step_counter):
        def model(observation_spec, num_actions):
            return tf.keras.Sequential([tf.keras.layers.Dense(num_actions)])

        network = functools.partial(q_networks.KerasQNetwork, model=model)
        optimizer = tf.keras.optimizers.SGD()
        return NStepDqnAgent(time_step_spec, action_spec, network=network, optimizer=optimizer)

    with gym_environment(num_envs=1, training=True, seed=1, id="CartPole-v1") as environment:
        with pytest.raises(ConfigurationError, match="the agent without_torso has none"):
            agent_factory.make_agent(without_torso, environment, "bfloat16")


def _with_a_torso(time_step_spec, action_spec, train_step_counter):
    optimizer = tf.keras.optimizers.SGD()
    return NStepDqnAgent(
        time_step_spec, action_spec, network=q_networks.MlpQNetwork, optimizer=optimizer
    )


@pytest.mark.parametrize("instructions, told", [("avx512_bf16", 0), ("avx512bw avx512vl", 1)])
def test_a_processor_that_has_no_instructions_for_it_is_told_of(
    instructions, told, tmp_path, monkeypatch, caplog
):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\nflags\t\t: fpu avx2 {instructions}\n")
    monkeypatch.setattr(precision, "_PROCESSOR", tmp_path / "cpuinfo")
    with gym_environment(num_envs=1, training=True, seed=1, id="CartPole-v1") as environment:
        for compute_dtype in ("float32", "bfloat16"):
            agent_factory.make_agent(_with_a_torso, environment, compute_dtype)
    assert caplog.text.count("has no instructions for it") == told
