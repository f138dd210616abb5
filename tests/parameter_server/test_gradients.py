"""The gradient of any agent's loss: equal to a plain tape's, clipped, in a fixed order."""

import functools
import json

import numpy as np
import preloaded
import pytest
import tensorflow as tf
from tf_agents.agents import tf_agent
from tf_agents.agents.dqn import dqn_agent
from tf_agents.networks import q_network
from tf_agents.policies import random_tf_policy
from tf_agents.specs import BoundedTensorSpec, TensorSpec
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from tfdrl.agents.n_step_actor_critic import NStepActorCriticAgent
from tfdrl.agents.n_step_dqn import NStepDqnAgent
from tfdrl.agents.n_step_q import NStepQAgent
from tfdrl.errors import ConfigurationError
from tfdrl.networks.actor_critic_networks import MlpActorCriticNetwork
from tfdrl.networks.q_networks import KerasQNetwork, MlpQNetwork
from tfdrl.parameter_server.gradients import LossGradient

SIZE, ACTIONS, BATCH = 3, 2, 4
_SPECS = (
    ts.time_step_spec(TensorSpec([SIZE], tf.float32)),
    BoundedTensorSpec([], tf.int32, 0, ACTIONS - 1),
)


def actor_critic(**settings):
    network = functools.partial(MlpActorCriticNetwork, layer_units=(7, 5))
    return NStepActorCriticAgent(*_SPECS, network=network, **settings)


def q_agent(agent=NStepQAgent, layer_units=(7, 5), **settings):
    network = functools.partial(MlpQNetwork, layer_units=layer_units)
    return agent(*_SPECS, network=network, **{"optimizer": None, **settings})


def tf_agents_dqn(**settings):
    """TF-Agents' own, which knows nothing of tfdrl."""
    networks = [
        q_network.QNetwork(_SPECS[0].observation, _SPECS[1], fc_layer_params=(7, 5), name=name)
        for name in ("Q", "Target")
    ]
    return dqn_agent.DqnAgent(
        *_SPECS, q_network=networks[0], target_q_network=networks[1], optimizer=None, **settings
    )


def batch_of(agent, steps, seed=0):
    """Random trajectories [B, steps]."""
    random = np.random.default_rng(seed)
    outer = (BATCH, steps)
    info = tf.nest.map_structure(
        lambda spec: random.normal(size=(*outer, *spec.shape)).astype(np.float32),
        agent.collect_data_spec.policy_info,
    )
    return trajectory.Trajectory(
        step_type=np.ones(outer, np.int32),
        observation=random.normal(size=(*outer, SIZE)).astype(np.float32),
        action=random.integers(0, ACTIONS, outer).astype(np.int32),
        policy_info=info,
        next_step_type=np.ones(outer, np.int32),
        reward=random.normal(size=outer).astype(np.float32),
        discount=np.ones(outer, np.float32),
    )


@pytest.fixture(autouse=True)
def the_same_networks():
    """In every order of the tests: some have too little to clip, or a loss that cancels out."""
    tf.keras.utils.set_random_seed(0)


def arguments(experience):
    return {"experience": experience}


def gradient_of(agent, steps):
    """LossGradient, and the batch that it was made with."""
    batch = batch_of(agent, steps)
    return LossGradient(agent, arguments, [batch]), batch


#: name: (agent, steps of a trajectory)
_AGENTS = {
    "NStepActorCriticAgent": (actor_critic, 6),
    "NStepQAgent": (q_agent, 6),
    "NStepDqnAgent": (functools.partial(q_agent, NStepDqnAgent), 2),
    "DqnAgent": (tf_agents_dqn, 2),
}


@functools.cache
def made(name):
    """Agent, LossGradient and batch; to trace a loss takes seconds."""
    make, steps = _AGENTS[name]
    agent = make()
    return (agent, *gradient_of(agent, steps))


@pytest.fixture(params=_AGENTS)
def plugged_in(request):
    return made(request.param)


def plain_gradient(agent, batch, variables):
    experience = tf.nest.map_structure(tf.convert_to_tensor, batch)
    with tf.GradientTape() as tape:
        info = agent.loss(experience, training=True)
    found = tape.gradient(info.loss, variables)
    return float(info.loss), [tf.convert_to_tensor(g).numpy() for g in found]


def test_compiled_it_is_the_same():
    agent, gradient, example = made("NStepActorCriticAgent")
    batch = batch_of(agent, example.reward.shape[1], seed=1)
    compiled = LossGradient(agent, arguments, [example], jit_compile=True)
    for found, wanted in zip(compiled(batch), gradient(batch)):
        tf.nest.map_structure(
            functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), found, wanted
        )


def test_it_is_a_plain_tapes(plugged_in):
    agent, gradient, example = plugged_in
    batch = batch_of(agent, example.reward.shape[1], seed=1)
    found = gradient(batch)
    loss, expected = plain_gradient(agent, batch, gradient.variables)
    flat = np.concatenate([g.ravel() for g in expected])
    np.testing.assert_allclose(found.parts[0], flat, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.loss, loss, rtol=1e-5)
    np.testing.assert_allclose(found.norm, np.sqrt(np.sum(flat**2)), rtol=1e-4)
    assert found.is_finite and found.norm > 0 and len(found.parts) == 1


def test_all_of_the_policy_and_nothing_of_the_target_is_trained(plugged_in):
    agent, gradient, _ = plugged_in
    ids = {id(variable) for variable in gradient.variables}
    assert len(ids) == len(gradient.variables)
    if isinstance(agent, NStepActorCriticAgent):  # two layers and two heads
        assert len(ids) == 2 * 4
    else:  # two layers and a head; its target has as many
        shapes = [v.shape.as_list() for v in gradient.variables]
        assert shapes == [[SIZE, 7], [7], [7, 5], [5], [5, ACTIONS], [ACTIONS]]


def test_targets_enter_the_loss_as_they_are(plugged_in):
    """`initialize` copies the network to its target; learning calls nothing else."""
    agent, gradient, batch = plugged_in
    agent.initialize()
    first = gradient(batch)
    for variable in gradient.variables:
        variable.assign(variable + 0.1)
    moved = gradient(batch).loss
    agent.initialize()
    assert first.loss != moved
    is_target_free = isinstance(agent, NStepActorCriticAgent)
    assert (gradient(batch).loss == moved) == is_target_free


def test_parts_are_those_of_the_shards():
    agent, gradient, batch = made("NStepQAgent")
    whole = gradient(batch)
    pieces = np.split(whole.parts[0], np.cumsum([SIZE * 7, 7, 7 * 5, 5, 5 * ACTIONS]))
    other, _ = gradient_of(agent, 6)
    other.split(((2, 5), (0,), (1, 3, 4)))
    parts = other(batch).parts
    for part, mine in zip(parts, ((2, 5), (0,), (1, 3, 4))):
        np.testing.assert_allclose(
            part, np.concatenate([pieces[i] for i in mine]), rtol=1e-5, atol=1e-7
        )


def test_scalars_of_the_loss_come_along():
    _, gradient, batch = made("NStepQAgent")
    found = gradient(batch)
    assert {"td_error", "q"} <= set(found.extra)
    assert all(isinstance(value, float) for value in found.extra.values())


# Clipping.


@pytest.mark.parametrize("clip_norm", [0.01, None])
def test_the_global_norm_is_clipped(clip_norm):
    agent = q_agent(gradient_clip_norm=clip_norm)
    gradient, batch = gradient_of(agent, 6)
    found = gradient(batch)
    _, expected = plain_gradient(agent, batch, gradient.variables)
    flat = np.concatenate([g.ravel() for g in expected])
    norm = np.sqrt(np.sum(flat**2))
    factor = 1.0 if clip_norm is None else min(1.0, clip_norm / norm)
    np.testing.assert_allclose(found.norm, norm, rtol=1e-4)  # before clipping
    np.testing.assert_allclose(found.parts[0], factor * flat, rtol=1e-4, atol=1e-8)
    assert clip_norm != 0.01 or factor < 0.1


def test_tf_agents_clips_each_variables_norm():
    agent = tf_agents_dqn(gradient_clipping=0.002)
    gradient, batch = gradient_of(agent, 2)
    found = gradient(batch)
    _, expected = plain_gradient(agent, batch, gradient.variables)
    clipped = [g * min(1.0, 0.002 / np.sqrt(np.sum(g**2))) for g in expected]
    assert sum(np.sqrt(np.sum(g**2)) > 0.002 for g in expected) >= 3
    np.testing.assert_allclose(
        found.parts[0], np.concatenate([g.ravel() for g in clipped]), rtol=1e-4, atol=1e-7
    )


def test_a_table_that_several_rows_read_has_the_right_norm():
    """Its gradient comes as rows, one row several times: the norm is of their sum."""

    class Table(tf_agent.TFAgent):
        def __init__(self):
            self.table = tf.Variable([[3.0], [4.0]])
            policy = random_tf_policy.RandomTFPolicy(*_SPECS)
            super().__init__(*_SPECS, policy, policy, train_sequence_length=None)

        gradient_clip_norm = 1.0

        def _train(self, experience, weights=None):
            raise NotImplementedError

        def _loss(self, experience, weights=None, training=False):
            rows = tf.gather(self.table, experience.action[:, 0])
            return tf_agent.LossInfo(tf.reduce_sum(rows), ())

    agent = Table()
    batch = batch_of(agent, 2)._replace(action=np.array([[0, 0], [0, 0], [0, 0], [1, 1]], np.int32))
    found = LossGradient(agent, arguments, [batch])(batch)
    norm = np.sqrt(3.0**2 + 1.0**2)
    np.testing.assert_allclose(found.norm, norm, rtol=1e-6)
    np.testing.assert_allclose(found.parts[0], [3.0 / norm, 1.0 / norm], rtol=1e-6)


# What cannot be used.


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_experience_that_is_not_finite_is_told(plugged_in, value):
    _, gradient, batch = plugged_in
    reward = batch.reward.copy()
    reward[1, 0] = value
    assert not gradient(batch._replace(reward=reward)).is_finite
    assert gradient(batch).is_finite


def normalised_model(observation_spec, actions):
    layers = [tf.keras.layers.BatchNormalization(), tf.keras.layers.Dense(actions)]
    model = tf.keras.Sequential(layers)
    model.build([None, SIZE])
    return model


def test_batch_normalisation_is_refused():
    """Its moving averages have no gradient: the policies of other workers would not have them."""
    network = functools.partial(KerasQNetwork, model=normalised_model)
    agent = NStepQAgent(*_SPECS, network=network)
    message = r"policy of NStepQAgent acts by variables that no gradient .*moving_mean.*moving_var"
    with pytest.raises(ConfigurationError, match=message):
        gradient_of(agent, 6)


def test_an_agent_without_a_loss_is_refused():
    class OnlyTrains(tf_agent.TFAgent):
        def _train(self, experience, weights=None):
            raise AssertionError

    policy = random_tf_policy.RandomTFPolicy(*_SPECS)
    agent = OnlyTrains(*_SPECS, policy, policy, train_sequence_length=None)
    with pytest.raises(ConfigurationError, match=r"OnlyTrains has no loss\(\) to differentiate"):
        gradient_of(agent, 2)


def test_a_loss_of_no_variables_is_refused():
    class Constant(tf_agent.TFAgent):
        def _train(self, experience, weights=None):
            raise AssertionError

        def _loss(self, experience, weights=None, training=False):
            return tf_agent.LossInfo(tf.reduce_sum(experience.reward), ())

    policy = random_tf_policy.RandomTFPolicy(*_SPECS)
    agent = Constant(*_SPECS, policy, policy, train_sequence_length=None)
    with pytest.raises(ConfigurationError, match="no variable of Constant has a gradient"):
        gradient_of(agent, 2)


# The order of variables, by which all roles understand each other.

#: So many layers of different sizes that an order by chance would differ.
_UNITS = (3, 4, 5, 6, 7)


def shapes_in_order():
    gradient, _ = gradient_of(q_agent(layer_units=_UNITS), 2)
    return [variable.shape.as_list() for variable in gradient.variables]


def print_shapes():
    """Run by the test below in another process."""
    print("shapes", json.dumps(shapes_in_order()), flush=True)


def test_the_order_is_the_same_in_every_build_and_process():
    sizes = [SIZE, *_UNITS, ACTIONS]
    here = [shape for i, o in zip(sizes, sizes[1:]) for shape in ([i, o], [o])]
    assert shapes_in_order() == here
    assert shapes_in_order() == here
    output = preloaded.call("test_gradients:print_shapes", __file__)
    lines = [line for line in output.splitlines() if line.startswith("shapes ")]
    assert lines, output[-3000:]
    assert json.loads(lines[0].removeprefix("shapes ")) == here
