"""What V-trace converges to on an MDP small enough to enumerate (Espeholt 2018, section 4.1)."""

import numpy as np
import pytest
import tensorflow as tf

from tfdrl.ops.vtrace import vtrace

# Two states, two actions. To evaluate pi from the experience of mu, all paths of some steps are
# enumerated with their probabilities, so that expectations are exact.
GAMMA = 0.8
PI = np.array([[0.9, 0.1], [0.25, 0.75]])  # [state, action]
MU = np.array([[0.3, 0.7], [0.6, 0.4]])
REWARDS = np.array([[1.0, -2.0], [0.5, 3.0]])
TRANSITIONS = np.array([[[0.7, 0.3], [0.1, 0.9]], [[0.5, 0.5], [0.8, 0.2]]])  # [x, a, next x]


def value_of(policy):
    """V = (I - gamma P)^-1 r under a policy."""
    p = np.einsum("xa,xay->xy", policy, TRANSITIONS)
    return np.linalg.solve(np.eye(2) - GAMMA * p, np.sum(policy * REWARDS, axis=1))


def clipped_policy(rho_bar):
    """pi_rho_bar, proportional to min(rho_bar mu, pi) (Espeholt 2018, equation 3)."""
    weights = np.minimum(rho_bar * MU, PI)
    return weights / weights.sum(axis=1, keepdims=True)


def all_paths(steps):
    """(states [steps + 1, P], actions [steps, P], probabilities under mu given x_0 [P])"""
    choices = np.array(np.meshgrid(*[[0, 1]] * (2 * steps + 1))).reshape(2 * steps + 1, -1)
    states, actions = choices[: steps + 1], choices[steps + 1 :]
    here, there = states[:-1], states[1:]
    probability = np.prod(MU[here, actions] * TRANSITIONS[here, actions, there], axis=0)
    return states, actions, probability


def expected_targets(truncated_at=(), **settings):
    """The operator V -> E_mu[v_0], as a function of arrays [2]."""
    states, actions, probability = all_paths(4)
    here = states[:-1]
    ratios = np.log(PI / MU)[here, actions]
    constants = [
        tf.constant(array, tf.float32)
        for array in (ratios, np.full_like(ratios, GAMMA), REWARDS[here, actions])
    ]
    is_end = np.zeros(actions.shape, bool)
    is_end[list(truncated_at)] = True
    weights = tf.constant(probability * np.eye(2)[states[0]].T, tf.float32)  # [x_0, P]

    @tf.function
    def apply(value):
        values = tf.gather(value, states)
        vs = vtrace(*constants, values[:-1], values[1:], tf.constant(is_end), **settings).vs
        return tf.linalg.matvec(weights, vs[0])

    return apply


@pytest.mark.parametrize("truncated_at", [(), (1,)])
@pytest.mark.parametrize("c_bar", [0.0, 0.3, 0.5, 1.0, 5.0])
@pytest.mark.parametrize("rho_bar", [0.5, 1.0, 10.0])
def test_rho_bar_decides_what_is_learnt_and_c_bar_does_not(rho_bar, c_bar, truncated_at):
    """A time limit does not change it either."""
    operator = expected_targets(truncated_at, rho_bar=rho_bar, c_bar=c_bar)
    value = tf.zeros([2])
    for _ in range(150):
        value = operator(value)
    np.testing.assert_allclose(value, value_of(clipped_policy(rho_bar)), rtol=1e-4)


def test_what_is_learnt_differs_and_lies_between_the_policies():
    learnt = [value_of(clipped_policy(rho_bar)) for rho_bar in (0.01, 0.5, 1.0, 10.0)]
    np.testing.assert_allclose(learnt[0], value_of(MU))
    np.testing.assert_allclose(learnt[3], value_of(PI))
    assert all(np.abs(a - b).max() > 0.1 for a, b in zip(learnt, learnt[1:]))


def test_with_a_tiny_rho_bar_it_evaluates_the_behaviour():
    """Too slow to iterate: at V of mu, no expected step is left."""
    value = value_of(MU)
    moved = expected_targets(rho_bar=0.01, c_bar=0.01)(tf.constant(value, tf.float32)) - value
    np.testing.assert_allclose(moved, [0, 0], atol=0.01 * 1e-3)
    away = expected_targets(rho_bar=1.0)(tf.constant(value, tf.float32)) - value
    assert np.abs(away).max() > 0.1
