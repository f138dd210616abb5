"""A gradient step: its sum over replicas, its clipping, what is not finite, and its checkpoint."""

import functools

import numpy as np
import preloaded
import pytest
import table_networks as tables
import tensorflow as tf
from v_trace_equations import Unrolls

from tfdrl.agents import actor_critic_policy as acp
from tfdrl.agents import optimizers
from tfdrl.agents.gradient_step import apply_gradients
from tfdrl.learning.trainer import Trainer
from tfdrl.networks.actor_critic_networks import MlpActorCriticNetwork
from tfdrl.runtime import agent_factory
from tfdrl.runtime.checkpoints import Checkpoints

ACTIONS, FEATURES, UNITS, BATCH = 3, 4, 5, 6
DEFAULT = tf.distribute.get_strategy()


def step(gradients, loss=1.0, clip_norm=None, optimizer=None, variables=None):
    """(returned loss, norm, variables after a step of rate 1 from 0)"""
    variables = variables or [tf.Variable(tf.zeros_like(g)) for g in gradients if g is not None]
    optimizer = optimizer or tf.keras.optimizers.SGD(1.0)
    found = apply_gradients(optimizer, gradients, variables, tf.constant(loss), clip_norm)
    return *(value.numpy() for value in found), [variable.numpy() for variable in variables]


@pytest.mark.parametrize(("clip_norm", "scale"), [(None, 1.0), (10.0, 1.0), (1.0, 1 / 5)])
def test_the_global_norm_is_clipped_and_told_as_it_was(clip_norm, scale):
    loss, norm, (one, other) = step([tf.constant([3.0, 0.0]), tf.constant([4.0])], 2.5, clip_norm)
    assert (loss, norm) == (2.5, 5.0)
    np.testing.assert_allclose(one, [-3 * scale, 0], rtol=1e-6)
    np.testing.assert_allclose(other, [-4 * scale], rtol=1e-6)


def test_a_variable_that_the_loss_does_not_use_stays():
    variables = [tf.Variable(1.0), tf.Variable([2.0])]
    _, norm, (one, other) = step([None, tf.constant([0.5])], variables=variables)
    assert (one, other[0], norm) == (1.0, 1.5, 0.5)


@pytest.mark.parametrize("clip_norm", [None, 40.0])
@pytest.mark.parametrize(
    ("gradient", "loss"), [(np.nan, 1.0), (np.inf, 1.0), (1.0, np.nan), (1.0, -np.inf)]
)
def test_what_is_not_finite_counts_as_gradients_of_0(gradient, loss, clip_norm):
    """Adam's averages stay finite, too, and its momentum goes on as it would after zeros."""
    losses, values = [], []
    for bad in ([gradient, 2.0], None):
        variables, optimizer = [tf.Variable([1.0]), tf.Variable([2.0])], optimizers.adam(0.1)
        take = functools.partial(step, clip_norm=clip_norm, optimizer=optimizer)
        take([tf.constant([1.0]), tf.constant([-1.0])], variables=variables)
        second = [tf.constant([value]) for value in bad or [0.0, 0.0]]
        losses.append(take(second, loss if bad else 1.0, variables=variables)[0])
        values.append(take([tf.constant([1.0]), tf.constant([1.0])], variables=variables)[2])
    assert np.isnan(losses[0]) and losses[1] == 1.0
    np.testing.assert_array_equal(*values)


def make_agent(optimizer, seed=3, **settings):
    """With all that a batch can carry: a recurrent state, last actions and last rewards."""
    agent_factory.set_seed(seed)
    return tables.make_agent(
        tables.discrete(ACTIONS),
        functools.partial(MlpActorCriticNetwork, layer_units=(8,), lstm_units=UNITS),
        tf.TensorSpec([FEATURES], tf.float32),
        **{"optimizer": optimizer, "last_action_and_reward": True, "gamma": 0.9, **settings},
    )


def batch(seed, bad_unroll=None):
    """What `train_once` takes: 6 unrolls with boundaries, the reward of one NaN if asked for."""
    random, unrolls = np.random.default_rng(seed), Unrolls(is_discrete=True, seed=seed)
    experience = tf.nest.map_structure(lambda leaf: leaf[:BATCH], unrolls.experience())
    outer = experience.step_type.shape
    reward = experience.reward.numpy()
    if bad_unroll is not None:
        reward[bad_unroll, 4] = np.nan
    observation = random.normal(size=(*outer, FEATURES)).astype(np.float32)
    state = [tf.constant(s, tf.float32) for s in random.normal(size=(2, BATCH, UNITS))]
    return {
        "experience": experience._replace(observation=tf.constant(observation), reward=reward),
        "policy_state": acp.ActorCriticState(state, tf.constant([0, 1, 2, 0, 1, 2])),
        "last_reward": tf.constant(random.normal(size=BATCH), tf.float32),
    }


def weights_of(agent):
    return [variable.numpy() for variable in agent.network.variables]


def multiplier_of(agent):
    """The cost of the entropy, of each replica, where it is trained."""
    if agent._multiplier is None:
        return []
    copies = DEFAULT.experimental_local_results(agent._multiplier.variable)
    copies = getattr(agent._multiplier.variable, "values", copies)
    assert len({float(copy) for copy in copies}) == 1
    return [copies[0].numpy()]


def results_of(strategy, reduction, correction, clip_norm, **settings):
    """Losses, info and weights over 4 steps, of which the third is bad in one replica's half."""
    settings |= {"reduction": reduction, "correction": correction, "gradient_clip_norm": clip_norm}
    with strategy.scope():
        agent = make_agent(optimizers.sgd(0.25 / clip_norm), **settings)
    trainer, losses, norms = Trainer(agent, strategy, max_bad_steps=2), [], []
    for seed, bad_unroll in enumerate([None, None, 1, None]):
        loss, info = trainer.train_once(**batch(seed, bad_unroll))
        losses.append(loss)
        norms.append(info["gradient_norm"])
    assert np.isnan(losses[2]) and np.isfinite(losses[:2]).all() and np.isfinite(losses[3])
    assert min(norms[:2]) > clip_norm  # clipped: it matters when, before the sum or after it
    assert agent.train_step_counter.numpy() == 4
    return [losses, norms, *weights_of(agent), *multiplier_of(agent)]


def compare_strategies():
    """Run by the test below in a process where two logical devices can still be made."""
    from tfdrl.learning.devices import strategy

    mirrored = strategy(kind="mirrored", devices=("CPU:0", "CPU:1"))
    assert mirrored.num_replicas_in_sync == 2
    held = {"target_entropy": 0.7, "kl_cost": 0.2}
    for *settings, more in (
        ("sum", "vtrace", 0.5, {}),
        ("mean", "one_step_is", 0.02, held),
    ):
        left, right = (results_of(s, *settings, **more) for s in (mirrored, DEFAULT))
        for a, b in zip(left, right):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5, err_msg=str(settings))
        start = weights_of(make_agent(optimizers.sgd()))
        assert min(np.abs(a - b).max() for a, b in zip(right[2:], start)) > 1e-3
    print("strategies agree")


def test_two_replicas_learn_what_one_does():
    output = preloaded.call("test_gradient_step:compare_strategies", __file__)
    assert "strategies agree" in output, output[-3000:]


SCHEDULE = functools.partial(optimizers.linear_schedule, 1e-2, 0.0, 6)


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        (lambda: optimizers.adam(1e-2), {"target_entropy": 0.5}),
        (lambda: optimizers.rmsprop_release(SCHEDULE()), {}),
    ],
    ids=["adam and an entropy that is held", "rmsprop with a schedule"],
)
def test_training_goes_on_from_a_checkpoint_as_if_nothing_had_been(optimizer, settings, tmp_path):
    agent, other = (make_agent(optimizer(), seed=seed, **settings) for seed in (3, 4))
    trainer = Trainer(agent, DEFAULT, 1)
    for seed in range(2):
        trainer.train_once(**batch(seed))
    assert Checkpoints(tmp_path, {"agent": agent}).save(2, {})
    first = [trainer.train_once(**batch(seed))[0] for seed in (2, 3)]
    assert Checkpoints(tmp_path, {"agent": other}).restore() == 2
    trainer = Trainer(other, DEFAULT, 1)
    assert first == [trainer.train_once(**batch(seed))[0] for seed in (2, 3)]
    for left, right in zip(weights_of(agent), weights_of(other)):
        np.testing.assert_array_equal(left, right)
    assert multiplier_of(agent) == multiplier_of(other)
    assert agent.train_step_counter.numpy() == other.train_step_counter.numpy() == 4


def test_a_bad_unroll_costs_a_step_and_nothing_else():
    agent = make_agent(optimizers.rmsprop_release(1e-2))  # without momentum
    agent.train(**batch(0))
    before = weights_of(agent)
    assert np.isnan(agent.train(**batch(1, bad_unroll=3)).loss)
    for left, right in zip(before, weights_of(agent)):
        np.testing.assert_array_equal(left, right)
    assert np.isfinite(agent.train(**batch(2)).loss)
    assert max(np.abs(a - b).max() for a, b in zip(before, weights_of(agent))) > 1e-3
