"""The trainer: several updates in one call, several replicas, and when it gives up."""

import functools
import unittest.mock

import numpy as np
import preloaded
import pytest
import tensorflow as tf
from tf_agents.agents.dqn import dqn_agent
from tf_agents.networks import q_network

from tfdrl.agents import optimizers
from tfdrl.agents.n_step_dqn import NStepDqnAgent
from tfdrl.environments import gym_environment
from tfdrl.errors import ConfigurationError, DivergedError
from tfdrl.experience.transitions import to_trajectory
from tfdrl.learning.session import _waits_for
from tfdrl.learning.trainer import Trainer, check_batch
from tfdrl.networks.q_networks import MlpQNetwork
from tfdrl.runtime import agent_factory
from tfdrl.types import Transitions

STATES, ACTIONS, BATCH = 5, 2, 8
DEFAULT = tf.distribute.get_strategy()


@pytest.mark.parametrize(
    ("optimizer", "words"),
    [
        (
            optimizers.adam,
            r"NStepDqnAgent.optimizer = @adam only names it; write @adam\(\) to make",
        ),
        (tf.keras.optimizers.Adam, r"optimizer = @Adam only names it"),
        (None, "NStepDqnAgent.optimizer = None is for parameter servers"),
    ],
)
def test_an_optimizer_that_could_not_train_is_refused_at_once(optimizer, words):
    agent = make_agent()
    agent._optimizer = optimizer
    with pytest.raises(ConfigurationError, match=words):
        Trainer(agent, DEFAULT, max_bad_steps=1)


def test_an_agent_may_keep_a_factory_of_optimizers():
    agent = make_agent()
    agent._make_optimizer = optimizers.adam
    Trainer(agent, DEFAULT, max_bad_steps=1)


def make_agent(optimizer=None, factory=None):
    """A small agent for Chain, with the same first weights every time."""
    agent_factory.set_seed(3)

    def n_step_dqn(time_step_spec, action_spec, train_step_counter):
        return NStepDqnAgent(
            *(time_step_spec, action_spec),
            network=functools.partial(MlpQNetwork, layer_units=(8,), dueling=True),
            optimizer=optimizer or optimizers.rmsprop_centred(1e-2),
            target_update_period_steps=4,
            train_step_counter=train_step_counter,
        )

    with gym_environment(1, True, 0, id="tfdrl/Chain-v0") as environment:
        return agent_factory.make_agent(factory or n_step_dqn, environment)


def stock(time_step_spec, action_spec, train_step_counter):
    """TF-Agents' own."""
    return dqn_agent.DqnAgent(
        *(time_step_spec, action_spec),
        q_network=q_network.QNetwork(time_step_spec.observation, action_spec),
        optimizer=tf.keras.optimizers.Adam(),
        train_step_counter=train_step_counter,
    )


def batches(updates, seed, n_step_return=None):
    """(experience [K, B, 2, ...], weights [K, B])"""
    random = np.random.default_rng(seed)
    parts = []
    for _ in range(updates):
        transitions = Transitions(
            random.random((BATCH, STATES), np.float32),
            random.integers(0, ACTIONS, BATCH).astype(np.int32),
            random.normal(size=BATCH).astype(np.float32),
            random.choice([0.0, 0.9], BATCH).astype(np.float32),
            random.random((BATCH, STATES), np.float32),
        )
        parts.append(tf.nest.map_structure(lambda x: x[None], to_trajectory(transitions)))
    experience = tf.nest.map_structure(lambda *x: np.concatenate(x), *parts)
    return experience, tf.constant(random.random((updates, BATCH)), tf.float32)


def part(batch, k):
    return tf.nest.map_structure(lambda x: x[k : k + 1], batch)


def weights_of(agent):
    networks = (agent.q_network, agent.target_q_network)
    return [variable.numpy() for network in networks for variable in network.variables]


def train(agent, strategy, updates, calls):
    """(losses of all updates, TD errors of the last call) over fixed data."""
    trainer, losses = Trainer(agent, strategy, max_bad_steps=1), []
    for call in range(calls):
        loss, td_error = trainer.train(*batches(updates, seed=call))
        losses.extend(loss)
    return losses, td_error


def test_several_updates_in_one_call_are_the_updates_one_by_one():
    together, apart = make_agent(), make_agent()
    trainer, one = Trainer(together, DEFAULT, 1), Trainer(apart, DEFAULT, 1)
    for call in range(2):
        batch = batches(3, seed=call)  # the target is copied within the second call
        losses, td_errors = trainer.train(*batch)
        assert losses.shape == (3,) and td_errors.shape == (3, BATCH)
        for k in range(3):
            loss, td_error = one.train(*part(batch, k))
            np.testing.assert_allclose(losses[k], loss[0], rtol=1e-6)
            np.testing.assert_allclose(td_errors[k], td_error[0], rtol=1e-5, atol=1e-6)
    for left, right in zip(weights_of(together), weights_of(apart)):
        np.testing.assert_allclose(left, right, rtol=1e-6, atol=1e-6)
    assert together.train_step_counter.numpy() == apart.train_step_counter.numpy() == 6
    changed = [np.abs(x - y).max() for x, y in zip(weights_of(together), weights_of(make_agent()))]
    assert min(changed) > 1e-3


@pytest.mark.parametrize("factory", [None, stock])
def test_compiled_updates_give_the_same_numbers(factory):
    results = []
    for jit_compile in (False, True):
        trained = make_agent(factory=factory)
        trainer = Trainer(trained, DEFAULT, 1, jit_compile)
        found = [trainer.train(*batches(3, seed=call)) for call in range(2)]  # a copy in the second
        variables = [v.numpy() for v in trained.collect_policy.variables()]
        results.append([*(x for both in found for x in both), *variables])
    for left, right in zip(*results):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


def test_several_replicas_are_not_compiled():
    with pytest.raises(ConfigurationError, match="jit_compile = True with 2 replicas"):
        Trainer(make_agent(), unittest.mock.Mock(num_replicas_in_sync=2), 1, jit_compile=True)


def test_same_seed_same_training():
    results = []
    for _ in range(2):
        agent = make_agent()
        results.append((*train(agent, DEFAULT, 2, 3), *weights_of(agent)))
    for left, right in zip(*results):
        np.testing.assert_array_equal(left, right)


def bad_batch(updates, bad):
    """Batches whose updates in `bad` have a reward that is not a number."""
    experience, weights = batches(updates, seed=0)
    experience.reward[bad, 0] = np.nan
    return experience, weights


def test_the_first_bad_loss_ends_the_run():
    agent = make_agent()
    trainer = Trainer(agent, DEFAULT, max_bad_steps=1)
    trainer.train(*batches(1, seed=1))
    before = weights_of(agent)
    with pytest.raises(DivergedError, match=r"learner step.*step 2") as error:
        trainer.train(*bad_batch(1, [0]))
    assert error.value.exit_code == 3
    for left, right in zip(weights_of(agent), before):
        np.testing.assert_array_equal(left, right)


def test_only_bad_losses_in_a_row_end_the_run():
    agent = make_agent()
    trainer = Trainer(agent, DEFAULT, max_bad_steps=3)
    losses, _ = trainer.train(*bad_batch(5, [1, 2, 4]))
    np.testing.assert_array_equal(np.isnan(losses), [False, True, True, False, True])
    assert trainer.bad_steps == 3
    trainer.train(*bad_batch(3, [0]))  # two in a row over two calls, then good ones
    assert trainer.bad_steps == 4
    assert np.isfinite(np.concatenate([w.reshape(-1) for w in weights_of(agent)])).all()
    with pytest.raises(DivergedError, match="3 learner steps in a row"):
        trainer.train(*bad_batch(4, [1, 2, 3]))
    assert agent.train_step_counter.numpy() == 12


def test_an_agent_of_tf_agents():
    """Its TD errors are there, too; a loss without any gives None."""
    losses, td_error = train(make_agent(factory=stock), DEFAULT, 2, 1)
    assert np.isfinite(losses).all() and td_error.shape == (2, BATCH)


def test_specs_tell_whether_there_are_td_errors_and_the_graph_is_built_once():
    batch = tf.nest.map_structure(tf.convert_to_tensor, batches(2, seed=0))
    trainer = Trainer(make_agent(), DEFAULT, max_bad_steps=1)
    assert trainer.gives_td_error(*tf.nest.map_structure(tf.TensorSpec.from_tensor, batch))
    assert trainer.train(*batch)[1].shape == (2, BATCH)
    assert trainer._train.experimental_get_tracing_count() == 1


class WithoutTdErrors(NStepDqnAgent):
    def _loss(self, *args, **kwargs):
        return super()._loss(*args, **kwargs)._replace(extra=())


def test_an_agent_without_td_errors():
    def factory(time_step_spec, action_spec, train_step_counter):
        return WithoutTdErrors(
            *(time_step_spec, action_spec, MlpQNetwork, optimizers.sgd()),
            train_step_counter=train_step_counter,
        )

    losses, td_error = train(make_agent(factory=factory), DEFAULT, 2, 1)
    assert np.isfinite(losses).all() and td_error is None
    trainer = Trainer(make_agent(factory=factory), DEFAULT, max_bad_steps=1)
    assert not trainer.gives_td_error(*batches(2, seed=0))


class TwoReplicas:
    num_replicas_in_sync = 2

    class extended:
        worker_devices = ("CPU:0", "CPU:1")


def test_a_batch_must_split_evenly():
    check_batch(6, TwoReplicas)
    with pytest.raises(ConfigurationError, match="batch of 7 cannot be split over 2"):
        check_batch(7, TwoReplicas)


def results_of(strategy, bad=False):
    """What both sides of the comparison below do; called in a process of its own."""
    with strategy.scope():
        agent = make_agent()
    losses, td_error = train(agent, strategy, updates=3, calls=3)
    assert agent.train_step_counter.numpy() == 9
    trainer = Trainer(agent, strategy, max_bad_steps=2)
    # A bad example in one replica's half: both skip the step.
    losses.extend(trainer.train(*bad_batch(2, [1]))[0])
    return [losses, td_error, *weights_of(agent)]


def compare_strategies():
    """Run by the test below where two logical devices can still be made."""
    from tfdrl.learning.devices import strategy

    mirrored = strategy(kind="mirrored", devices=("CPU:0", "CPU:1"))
    assert mirrored.num_replicas_in_sync == 2
    left, right = results_of(mirrored), results_of(strategy())
    assert np.isnan(left[0][-1]) and np.isfinite(left[0][:-1]).all()
    for a, b in zip(left, right):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigurationError, match="CPU:2"):
        strategy(kind="mirrored", devices=("CPU:0", "CPU:2"))
    print("strategies agree")


def test_it_says_once_that_it_traces():
    said = []
    trainer = Trainer(make_agent(), DEFAULT, 1, says=said.append)
    assert not said
    for seed in (1, 2):
        trainer.train(*batches(1, seed))
    assert said == ["tracing the training step"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"replay/size": 512, "replay/min_size": 1000}, "replay: 512 of 1,000 items"),
        ({"replay/size": 1000, "replay/min_size": 1000}, "waiting for the first batch"),
        ({"learner/queue": 3.0}, "waiting for the first batch"),
        ({}, "waiting for the first gradient"),
    ],
)
def test_a_learner_without_a_step_says_what_it_waits_for(values, words):
    assert _waits_for(values) == words


def test_two_replicas_learn_what_one_does():
    output = preloaded.call("test_trainer:compare_strategies", __file__)
    assert "strategies agree" in output, output[-3000:]
