"""The four corrections: values, gradients, where none may flow, and how they differ."""

import itertools

import numpy as np
import oracles
import pytest
import tensorflow as tf

from tfdrl.ops.actor_critic import CORRECTIONS, actor_critic_losses

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
NAMES = {"no_correction": "none", "eps_correction": "epsilon"}


def float32(*arrays):
    return [tf.constant(array, tf.float32) for array in arrays]


def log_prob_of(logits, actions):
    return tf.gather(tf.nn.log_softmax(logits), actions, batch_dims=2)


def losses_of(v, logits, values, correction, **settings):
    actions = v["actions"].astype(np.int32)
    behaviour_logits, discounts, rewards, bootstrap = float32(
        v["behaviour_logits"], v["discounts"], v["rewards"], v["bootstrap_value"]
    )
    return actor_critic_losses(
        log_prob_of(logits, actions),
        log_prob_of(behaviour_logits, actions),
        *(discounts, rewards, values, tf.concat([values[1:], bootstrap[None]], axis=0)),
        is_end=None,
        correction=correction,
        **settings,
    )


@pytest.mark.parametrize("case", oracles.cases("impala_loss"))
def test_oracle(case):
    """Values, and gradients of the whole loss by logits and values."""
    v = oracles.load("impala_loss", case)
    name, _, reduction = case.rpartition("_")
    reduce = {"sum": tf.reduce_sum, "mean": tf.reduce_mean}[reduction]
    logits, values = float32(v["target_logits"], v["values"])
    with tf.GradientTape() as tape:
        tape.watch([logits, values])
        losses = losses_of(v, logits, values, NAMES.get(name, name), epsilon=float(v["eps"]))
        policy_loss, value_loss = reduce(losses.policy), reduce(losses.value)
        log_pi = tf.nn.log_softmax(logits)
        entropy = reduce(-tf.reduce_sum(tf.exp(log_pi) * log_pi, axis=-1))
        total = policy_loss + v["baseline_cost"] * value_loss - v["entropy_cost"] * entropy
    by_logits, by_values = tape.gradient(total, [logits, values])
    np.testing.assert_allclose(losses.returns.vs, v["vs"], **TOLERANCE)
    np.testing.assert_allclose(losses.returns.pg_advantages, v["pg_advantages"], **TOLERANCE)
    np.testing.assert_allclose(policy_loss, v["policy_loss"], **TOLERANCE)
    np.testing.assert_allclose(value_loss, v["baseline_loss"], **TOLERANCE)
    np.testing.assert_allclose(total, v["total"], **TOLERANCE)
    np.testing.assert_allclose(by_logits, v["grad_logits"], **TOLERANCE)
    np.testing.assert_allclose(by_values, v["grad_values"], **TOLERANCE)


def test_every_correction_has_an_oracle():
    names = {case.rpartition("_")[0] for case in oracles.cases("impala_loss")}
    assert {NAMES.get(name, name) for name in names} == set(CORRECTIONS)
    assert len(oracles.cases("impala_loss")) == 8


def inputs(seed=0, shape=(7, 3)):
    """log_prob, behaviour_log_prob, discounts, rewards, values, next_values, is_end"""
    random = np.random.default_rng(seed)
    log_prob, behaviour = -2 + random.normal(size=(2, *shape))
    rewards, values, next_values = random.normal(size=(3, *shape))
    is_end = random.random(shape) < 0.2
    discounts = np.where(is_end & (random.random(shape) < 0.5), 0.0, 0.9)
    steps = float32(log_prob, behaviour, discounts, rewards, values, next_values)
    return [*steps, tf.constant(is_end)]


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_gradients(correction):
    """By log_prob: -advantage. By values: V - v. None by anything else, nor into the other loss."""
    steps = inputs()
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(steps[:6])
        losses = actor_critic_losses(*steps, correction=correction)
    by_policy = tape.gradient(losses.policy, steps[:6])
    advantages = losses.returns.pg_advantages
    np.testing.assert_allclose(by_policy[0], -advantages, rtol=1e-4)  # epsilon: p / (p + 1e-6)
    assert by_policy[1:] == [None] * 5
    by_value = tape.gradient(losses.value, steps[:6])
    np.testing.assert_allclose(by_value[4], steps[4] - losses.returns.vs, **TOLERANCE)
    assert by_value[:4] + by_value[5:] == [None] * 5
    assert tape.gradient(losses.returns, steps[:6]) == [None] * 6


def test_the_ratio_that_corrects_is_not_differentiated():
    """pi's gradient is that of log pi times a constant, not that of pi / mu."""
    logits, behaviour_logits = tf.constant([[[0.0, 1.0]]]), tf.constant([[[0.5, 0.0]]])
    zero = tf.zeros([1, 1])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        log_probs = [log_prob_of(x, [[0]]) for x in (logits, behaviour_logits)]
        losses = actor_critic_losses(*log_probs, zero, zero + 3.0, zero, zero, None)
    pi, rho = tf.nn.softmax(logits), tf.exp(log_probs[0] - log_probs[1])
    assert rho < 1
    expected = -rho * 3.0 * ([1.0, 0.0] - pi)
    np.testing.assert_allclose(tape.gradient(losses.policy, logits), expected, rtol=1e-5)


@pytest.mark.parametrize(("one", "other"), itertools.combinations(CORRECTIONS, 2))
def test_off_policy_every_correction_differs_from_every_other(one, other):
    steps = inputs()
    steps[0] = steps[0] - 10.0 * tf.one_hot([2, 2, 2], 7, axis=0)  # unlikely: epsilon shows
    a, b = (actor_critic_losses(*steps, correction=correction) for correction in (one, other))
    assert np.abs(a.policy - b.policy).max() > 0.01
    if "vtrace" in (one, other):
        assert np.abs(a.value - b.value).max() > 0.01
    else:
        np.testing.assert_array_equal(a.value, b.value)


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_on_policy_all_are_the_same(correction):
    steps = inputs()
    steps[1] = steps[0]
    plain = actor_critic_losses(*steps, correction="none")
    losses = actor_critic_losses(*steps, correction=correction)
    np.testing.assert_allclose(losses.policy, plain.policy, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(losses.value, plain.value, **TOLERANCE)


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_who_looks_at_the_behaviour(correction):
    steps = inputs()
    before = actor_critic_losses(*steps, correction=correction)
    steps[1] = steps[1] + 1.0
    after = actor_critic_losses(*steps, correction=correction)
    is_changed = [bool(np.any(a != b)) for a, b in zip(before[:2], after[:2])]
    expected = {"vtrace": [True, True], "one_step_is": [True, False]}
    assert is_changed == expected.get(correction, [False, False])


def test_epsilon_damps_what_hardly_ever_happens():
    """d log(pi + 1e-6) / d log pi = pi / (pi + 1e-6), and the loss stays finite at pi = 0."""
    steps = [tf.ones([3, 1]) for _ in range(6)] + [tf.constant([[True]] * 3)]
    log_prob = tf.constant([[np.log(1e-6)], [np.log(0.5)], [-np.inf]], tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(log_prob)
        losses = actor_critic_losses(log_prob, *steps[1:], correction="epsilon")
    assert np.isfinite(losses.policy).all()
    gradient = -tape.gradient(losses.policy, log_prob) / losses.returns.pg_advantages
    np.testing.assert_allclose(gradient[:, 0], [0.5, 1.0, 0.0], rtol=1e-4)


def test_clips_reach_those_that_use_them():
    steps = inputs()
    plain = {c: actor_critic_losses(*steps, correction=c) for c in CORRECTIONS}

    def changed(**settings):
        results = {c: actor_critic_losses(*steps, correction=c, **settings) for c in CORRECTIONS}
        return {
            (c, field)
            for c in CORRECTIONS
            for field in ("policy", "value")
            if np.any(getattr(plain[c], field) != getattr(results[c], field))
        }

    both = {("vtrace", "policy"), ("vtrace", "value")}
    assert changed(rho_bar=None) == changed(c_bar=0.5) == both
    assert changed(pg_rho_bar=None) == {("vtrace", "policy"), ("one_step_is", "policy")}
    assert changed(lambda_=0.9) == {(c, f) for c in CORRECTIONS for f in ("policy", "value")}


def test_an_unknown_correction_is_refused_with_the_names():
    with pytest.raises(ValueError, match="'v-trace'; use one of none, epsilon, one_step_is, vtr"):
        actor_critic_losses(*inputs(), correction="v-trace")


@pytest.mark.parametrize("position", [0, 1])
@pytest.mark.parametrize("change", [lambda x: x[0], lambda x: x[..., None], tf.transpose])
@pytest.mark.parametrize("correction", CORRECTIONS)
def test_shapes_are_checked(position, change, correction):
    """Log-probabilities for each dimension of an action would broadcast; they must be summed."""
    steps = inputs()
    steps[position] = change(steps[position])
    with pytest.raises(ValueError, match=r"one shape \[T, B\], got"):
        actor_critic_losses(*steps, correction=correction)


# Two states, two actions, deterministic transitions: with the exact V the expected gradients do
# not depend on where a trajectory is split into unrolls, and are the policy gradient.
GAMMA = 0.8
LOGITS = np.array([[1.0, -0.5], [0.0, 0.7]])  # [state, action]
PI = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=1, keepdims=True)
REWARDS = np.array([[1.0, -2.0], [0.5, 3.0]])
NEXT_STATE = np.array([[0, 1], [1, 0]])
STEPS = 4


def exact():
    """V [state], and the policy gradient [state, action] of STEPS steps from state 0."""
    p = np.einsum("xa,xay->xy", PI, np.eye(2)[NEXT_STATE])
    v = np.linalg.solve(np.eye(2) - GAMMA * p, np.sum(PI * REWARDS, axis=1))
    advantage = REWARDS + GAMMA * v[NEXT_STATE] - v[:, None]
    visits = sum(np.linalg.matrix_power(p, t)[0] for t in range(STEPS))
    # sum_a grad pi(a|x) A(x, a), as E_pi A = 0
    return v, visits[:, None] * PI * advantage


@pytest.mark.parametrize("unrolls", [[4], [2, 2], [1, 3], [1, 1, 1, 1]])
def test_how_a_trajectory_is_split_does_not_change_the_expected_gradient(unrolls):
    v, policy_gradient = exact()
    actions = np.array(list(itertools.product([0, 1], repeat=STEPS))).T  # [T, paths]
    states = np.zeros((STEPS + 1, actions.shape[1]), int)
    for t in range(STEPS):
        states[t + 1] = NEXT_STATE[states[t], actions[t]]
    probability = np.prod(PI[states[:-1], actions], axis=0)
    logits, values = float32(LOGITS, v)
    by_logits, by_values = np.zeros((2, 2)), np.zeros(2)
    for start, length in zip(np.cumsum([0, *unrolls[:-1]]), unrolls):
        part = slice(start, start + length)
        here, there = states[:-1][part], states[1:][part]
        rewards = REWARDS[here, actions[part]]
        with tf.GradientTape() as tape:
            tape.watch([logits, values])
            log_prob = log_prob_of(tf.gather(logits, here), actions[part])
            losses = actor_critic_losses(
                *(log_prob, log_prob, *float32(np.full(rewards.shape, GAMMA), rewards)),
                *(tf.gather(values, here), tf.gather(values, there), None),
            )
            loss = tf.reduce_sum(probability * (losses.policy + losses.value))
        gradients = tape.gradient(loss, [logits, values])
        by_logits += tf.convert_to_tensor(gradients[0])
        by_values += tf.convert_to_tensor(gradients[1])
    np.testing.assert_allclose(by_logits, -policy_gradient, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(by_values, [0, 0], atol=1e-5)
    assert np.abs(policy_gradient).min() > 0.1
