"""VTraceAgent's KL cost, and the entropy's cost that holds a target: from the equations."""

import numpy as np
import pytest
import table_networks as tables
import tensorflow as tf
from tf_agents.trajectories import trajectory
from v_trace_equations import BATCH, ENTROPY_COST, LENGTH, Unrolls, entropy_and_gradients

from tfdrl.agents import optimizers
from tfdrl.agents.entropy_multiplier import MAX_LOG_COST
from tfdrl.errors import ConfigurationError
from tfdrl.learning.trainer import Trainer
from tfdrl.types import FIRST, LAST

TOLERANCE = {"rtol": 1e-4, "atol": 1e-5}


def mask_of(u):
    return (u.step_type[:, :-1] != LAST).astype(np.float32)


def mean_entropy(u):
    mask = mask_of(u)
    return (mask * entropy_and_gradients(u, mask, mask)[0]).sum() / mask.sum()


@pytest.mark.parametrize("is_discrete", [True, False], ids=["discrete", "gaussian"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_the_kl_cost_from_the_equation(reduction, is_discrete):
    """sum_t cost (log mu(a_t) - log pi(a_t)), and its gradient -cost d log pi(a_t)."""
    u, cost = Unrolls(is_discrete), 0.3
    plain, gradients = tables.loss_and_gradients(u.agent(reduction=reduction), u.experience())
    agent = u.agent(reduction=reduction, kl_cost=cost)
    found, with_kl = tables.loss_and_gradients(agent, u.experience())
    scale = cost if reduction == "sum" else cost / (BATCH * LENGTH)
    kl = (mask_of(u) * (u.log_prob(u.behaviour) - u.log_prob(u.policy))).sum()
    np.testing.assert_allclose(found.extra.kl_loss, scale * kl, **TOLERANCE)
    np.testing.assert_allclose(found.loss - plain.loss, scale * kl, rtol=1e-3, atol=1e-4)
    _, of_policy = entropy_and_gradients(u, -scale * mask_of(u), 0 * mask_of(u))
    *rest, values = (a - b for a, b in zip(with_kl, gradients))
    for difference, wanted in zip(rest, of_policy):
        np.testing.assert_allclose(difference, wanted.reshape(difference.shape), **TOLERANCE)
        assert np.abs(wanted).max() > 100 * TOLERANCE["atol"]
    assert not values.any() and plain.extra.kl_loss == 0


@pytest.mark.parametrize("is_below", [True, False])
def test_a_step_of_the_multiplier_from_the_equation(is_below):
    """w -= speed c (H - target), by SGD of rate 1; the network's step is that of a constant c.

    Its gradient is in no norm, and not clipped.
    """
    u, speed = Unrolls(is_discrete=True), 4.0
    target = mean_entropy(u) + (0.25 if is_below else -0.25)
    settings = {"target_entropy": target, "entropy_cost_adjustment_speed": speed}
    plain, agent = (u.agent(gradient_clip_norm=0.5, **more) for more in ({}, settings))
    infos = [a.train(u.experience()) for a in (plain, agent)]
    w = np.log(ENTROPY_COST) / speed - speed * ENTROPY_COST * (mean_entropy(u) - target)
    np.testing.assert_allclose(agent._multiplier.variable, w, **TOLERANCE)
    assert (agent._multiplier.cost() > ENTROPY_COST) == is_below
    extra = infos[1].extra
    np.testing.assert_allclose(extra.entropy_cost, ENTROPY_COST, rtol=1e-5)
    wanted = ENTROPY_COST * (mean_entropy(u) - target)
    np.testing.assert_allclose(extra.multiplier_loss, wanted, **TOLERANCE)
    np.testing.assert_allclose(infos[1].loss - infos[0].loss, wanted, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(extra.gradient_norm, infos[0].extra.gradient_norm, rtol=1e-6)
    for left, right in zip(agent.network.variables, plain.network.variables):
        np.testing.assert_allclose(left, right, rtol=1e-6, atol=1e-7)


def bandit(agent, generator, batch=64):
    """Trajectory [B, 2] of episodes of one step, on-policy: the action a earns a."""
    logits = agent.network.policy[0].numpy()[0]
    probability = np.exp(logits) / np.exp(logits).sum()
    action = np.stack([generator.choice(3, batch, p=probability), np.zeros(batch, int)], axis=1)
    step_type = np.tile(np.int32([FIRST, LAST]), (batch, 1))
    return trajectory.Trajectory(
        step_type=step_type,
        observation=np.tile(np.int32([0, 1]), (batch, 1)),
        action=action.astype(np.int32),
        policy_info=tables.parameters_of([np.broadcast_to(logits, (batch, 2, 3))]),
        next_step_type=step_type,
        reward=action.astype(np.float32),
        discount=np.zeros((batch, 2), np.float32),
    )


def test_the_entropy_is_held_at_its_target():
    """Compiled by XLA. The cost starts too small: at first the policy of a bandit is greedy."""
    settings = {"target_entropy": 0.5, "entropy_cost_adjustment_speed": 0.2, "reduction": "mean"}
    settings |= {"entropy_cost": 0.3, "optimizer": optimizers.adam(0.1)}
    agent = tables.table_agent(tables.discrete(3), [np.zeros((2, 3))], np.zeros(2), **settings)
    trainer = Trainer(agent, tf.distribute.get_strategy(), 1, jit_compile=True)
    generator, shown = np.random.default_rng(0), []
    for _ in range(250):
        shown.append(trainer.train_once(bandit(agent, generator))[1]["entropy"])
    assert shown[0] > 1.09 and min(shown) < 0.1
    assert abs(np.mean(shown[-120:]) - 0.5) < 0.06


@pytest.mark.parametrize(("target", "bound"), [(99.0, MAX_LOG_COST), (-99.0, -MAX_LOG_COST)])
def test_the_multiplier_stays_in_its_range(target, bound):
    u, start = Unrolls(is_discrete=True), float(np.exp(0.99 * bound))
    agent = u.agent(
        entropy_cost=start, target_entropy=target, optimizer=tf.keras.optimizers.Adam(1.0)
    )
    for _ in range(2):
        agent.train(u.experience())
    np.testing.assert_allclose(np.log(agent._multiplier.cost()), bound, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kl_cost": -0.1}, r"VTraceAgent\.kl_cost = -0\.1 must be 0 or more"),
        ({"kl_cost": float("nan")}, r"VTraceAgent\.kl_cost = nan must be 0 or more"),
        ({"entropy_cost": 0.0}, r"VTraceAgent\.entropy_cost = 0\.0 is what target_entropy = 1\.0"),
        ({"target_entropy": float("inf")}, r"VTraceAgent\.target_entropy = inf must be finite"),
        ({"entropy_cost_adjustment_speed": 0.0}, r"adjustment_speed = 0\.0 finite and above 0"),
    ],
)
def test_what_cannot_be_held_is_refused(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        Unrolls(is_discrete=True).agent(**{"target_entropy": 1.0, **settings})
