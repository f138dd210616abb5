"""NStepActorCriticAgent on tables: A3C's losses and gradients, and what must have no effect."""

import inspect

import gin
import numpy as np
import oracles
import pytest
import table_networks as tables
import tensorflow as tf
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory
from v_trace_equations import (
    BASELINE_COST,
    BATCH,
    ENTROPY_COST,
    GAMMA,
    LENGTH,
    Unrolls,
    expected,
)

from tfdrl.agents.n_step_actor_critic import NStepActorCriticAgent
from tfdrl.agents.v_trace import VTraceAgent
from tfdrl.errors import ConfigurationError
from tfdrl.types import LAST, MID

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}


def make_agent(action_spec, policy, values, **settings):
    """An agent that looks up rows of `policy` [S, ...] and `values` [S]; gradient steps of 1."""
    states = len(values)
    defaults = {
        "network": lambda i, a: tables.TableNetwork(i, a, states),
        "optimizer": tf.keras.optimizers.SGD(1.0),
        "gradient_clip_norm": None,
        "train_step_counter": tf.Variable(0, dtype=tf.int64),
    }
    specs = (ts.time_step_spec(tables.numbers(states)), action_spec)
    agent = NStepActorCriticAgent(*specs, **{**defaults, **settings})
    agent.initialize()
    agent.network.set(policy, values)
    return agent


def agent_of(u, **settings):
    flat = [table.reshape(-1, table.shape[-1]) for table in u.policy]
    spec = tables.discrete(flat[0].shape[-1]) if u.is_discrete else tables.continuous(2)
    defaults = {"gamma": GAMMA, "value_cost": BASELINE_COST, "entropy_cost": ENTROPY_COST}
    return make_agent(spec, flat, u.values.reshape(-1), **{**defaults, **settings})


def oracle_cases():
    return oracles.cases("a3c")


def oracle(case):
    return oracles.load("a3c", case)


@pytest.mark.parametrize("case", oracle_cases())
def test_oracle(case):
    """One rollout; the value of the state after its end is not 0 where the end is terminal."""
    v = oracle(case)
    length, actions = v["logits"].shape
    logits = np.concatenate([v["logits"], np.zeros((1, actions))])
    values = np.append(v["values"], v["bootstrap_value"])
    settings = {"gamma": float(v["gamma"]), "entropy_cost": float(v["entropy_beta"])}
    agent = make_agent(tables.discrete(actions), [logits], values, value_cost=1.0, **settings)
    step_type = np.full((1, length + 1), MID, np.int32)
    discount = np.ones((1, length + 1))
    if v["terminal"]:
        step_type[0, length], discount[0, length - 1] = LAST, 0.0
    pad = lambda x: np.append(x, 0)[None]  # noqa: E731
    experience = trajectory.Trajectory(
        *(tf.constant(step_type), tf.range(length + 1)[None]),
        *(tf.constant(pad(v["actions"]), tf.int32), tables.parameters_of([logits[None]])),
        *(tf.constant(step_type), tf.constant(pad(v["rewards"]), tf.float32)),
        tf.constant(discount, tf.float32),
    )
    info, (by_logits, by_values) = tables.loss_and_gradients(agent, experience)
    bonus = settings["entropy_cost"] * length * info.extra.entropy
    np.testing.assert_allclose(info.extra.policy_loss - bonus, v["policy_loss"], **TOLERANCE)
    np.testing.assert_allclose(info.extra.value_loss, v["value_loss"], **TOLERANCE)
    np.testing.assert_allclose(info.loss, v["policy_loss"] + v["value_loss"], **TOLERANCE)
    np.testing.assert_allclose(by_logits[:-1], v["grad_logits"], **TOLERANCE)
    np.testing.assert_allclose(by_values[:-1], v["grad_values"], **TOLERANCE)
    np.testing.assert_allclose(-by_values[:-1], v["advantages"], **TOLERANCE)
    np.testing.assert_allclose(v["values"] - by_values[:-1], v["returns"], **TOLERANCE)
    assert not by_logits[-1].any() and not by_values[-1]


def n_step_returns(u):
    """R_t = r_t + gamma r_{t+1} + ... + gamma^n V(x_{t+n}), up to the end of episode or unroll."""
    returns = np.zeros((BATCH, LENGTH))
    for b, s in np.ndindex(BATCH, LENGTH):
        product = 1.0
        for t in range(s, LENGTH):
            returns[b, s] += product * u.reward[b, t]
            product *= GAMMA * u.discount[b, t]
            if u.step_type[b, t + 1] == LAST or t + 1 == LENGTH:
                returns[b, s] += product * u.values[b, t + 1]
                break
    return returns


@pytest.mark.parametrize("is_discrete", [True, False], ids=["discrete", "gaussian"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_loss_and_gradients_from_the_equations(reduction, is_discrete):
    """Episodes that terminate, that are truncated, and that begin within an unroll."""
    u = Unrolls(is_discrete)
    info, gradients = tables.loss_and_gradients(agent_of(u, reduction=reduction), u.experience())
    losses, wanted, _ = expected(u, "none", np.inf, np.inf, np.inf, 1.0)
    scale = 1.0 if reduction == "sum" else 1.0 / (BATCH * LENGTH)
    total = losses["policy"] + BASELINE_COST * losses["value"] - ENTROPY_COST * losses["entropy"]
    np.testing.assert_allclose(info.loss, scale * total, **TOLERANCE)
    for found, right in zip(gradients, wanted):
        np.testing.assert_allclose(found, scale * right.reshape(found.shape), rtol=1e-4, atol=1e-5)
    errors = (n_step_returns(u) - u.values[:, :-1]) * (u.step_type[:, :-1] != LAST)
    by_values = gradients[-1].reshape(BATCH, LENGTH + 1)
    np.testing.assert_allclose(by_values[:, :-1], -scale * BASELINE_COST * errors, **TOLERANCE)
    assert not by_values[:, -1].any()
    np.testing.assert_allclose(losses["value"], 0.5 * (errors**2).sum())


def test_it_does_not_correct_for_the_behaviour_as_vtrace_does():
    u, other = Unrolls(is_discrete=True), Unrolls(is_discrete=True)
    other.behaviour = [np.random.default_rng(5).normal(size=u.behaviour[0].shape)]
    ours = [tables.loss_and_gradients(agent_of(u), e.experience()) for e in (u, other)]
    vtrace = [tables.loss_and_gradients(u.agent(), e.experience()) for e in (u, other)]
    np.testing.assert_array_equal(ours[0][0].loss, ours[1][0].loss)
    for left, right in zip(ours[0][1], ours[1][1]):
        np.testing.assert_array_equal(left, right)
    assert abs(vtrace[0][0].loss - vtrace[1][0].loss) > 1.0
    assert abs(ours[0][0].loss - vtrace[0][0].loss) > 1.0
    assert ours[0][0].extra.log_rho > 0.1


def test_on_policy_it_is_vtrace():
    u = Unrolls(is_discrete=True)
    u.behaviour = u.policy
    ours, vtrace = (
        tables.loss_and_gradients(agent, u.experience()) for agent in (agent_of(u), u.agent())
    )
    np.testing.assert_allclose(ours[0].loss, vtrace[0].loss, rtol=1e-5)
    for left, right in zip(ours[1], vtrace[1]):
        np.testing.assert_allclose(left, right, **TOLERANCE)
    assert ours[0].extra.log_rho < 1e-4


def test_no_gradient_into_the_behaviour_the_rewards_or_the_targets():
    """That none flows through the returns into the values, the equations above show."""
    u = Unrolls(is_discrete=False)
    agent, experience = agent_of(u), u.experience()
    others = [*tf.nest.flatten(experience.policy_info), experience.reward, experience.discount]
    with tf.GradientTape() as tape:
        tape.watch(others)
        loss = agent.loss(experience, training=True).loss
    assert tape.gradient(loss, others) == [None] * 4


def test_what_followed_a_last_step_and_index_T_do_not_matter():
    u, other = Unrolls(is_discrete=True), Unrolls(is_discrete=True)
    was_last = u.step_type[:, :-1] == LAST
    assert was_last.sum() == 9
    other.action[was_last] = (other.action[was_last] + 1) % 3
    other.reward[was_last], other.discount[was_last] = 1e3, 7.0
    agent = agent_of(u)
    before, after = (
        tables.loss_and_gradients(agent, e) for e in (u.experience(), other.experience(filler=2.0))
    )
    np.testing.assert_array_equal(before[0].loss, after[0].loss)
    for left, right in zip(before[1], after[1]):
        np.testing.assert_array_equal(left, right)


def test_a_training_step_is_the_gradient_step():
    u = Unrolls(is_discrete=True)
    agent, experience = agent_of(u), u.experience()
    before = [variable.numpy() for variable in agent.network.variables]
    _, gradients = tables.loss_and_gradients(agent, experience)
    agent.train(experience)
    for variable, old, gradient in zip(agent.network.variables, before, gradients):
        np.testing.assert_allclose(variable.numpy(), old - gradient, **TOLERANCE)
    assert agent.train_step_counter.numpy() == 1


def test_without_an_optimizer_there_is_a_loss_but_no_training():
    u = Unrolls(is_discrete=True)
    agent, experience = agent_of(u, optimizer=None), u.experience()
    with tf.GradientTape() as tape:
        info = agent.loss(experience, training=True)
    gradients = tape.gradient(info.loss, agent.network.trainable_weights)
    trained, wanted = tables.loss_and_gradients(agent_of(u), experience)
    np.testing.assert_array_equal(info.loss, trained.loss)
    for gradient, right in zip(gradients, wanted):
        np.testing.assert_array_equal(tf.convert_to_tensor(gradient), right)
    with pytest.raises(ConfigurationError, match=r"NStepActorCriticAgent\.optimizer = None"):
        agent.train(experience)
    assert agent.train_step_counter.numpy() == 0


def test_train_names_what_a_batch_of_unrolls_offers():
    """A learner gives the state before the unrolls only to agents that ask for it."""
    parameters = inspect.signature(NStepActorCriticAgent._train).parameters
    assert list(parameters) == list(inspect.signature(VTraceAgent._train).parameters)


def test_settings_of_vtrace_are_not_its_own():
    u = Unrolls(is_discrete=True)
    before = agent_of(u).loss(u.experience()).loss
    for name, value in {
        "lambda_": 0.5,
        "baseline_cost": 9.0,
        "target_entropy": 1.0,
        "kl_cost": 9.0,
        "last_reward_clip": 0.5,
    }.items():
        gin.parse_config(f"VTraceAgent.{name} = {value}")
    try:
        assert u.agent(correction="none").loss(u.experience()).loss != before
        np.testing.assert_array_equal(agent_of(u).loss(u.experience()).loss, before)
    finally:
        gin.clear_config()


def test_defaults_are_the_papers():
    parameters = inspect.signature(NStepActorCriticAgent.__init__).parameters
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    assert (defaults["gamma"], defaults["reduction"]) == (0.99, "sum")
    assert (defaults["value_cost"], defaults["entropy_cost"]) == (0.5, 0.01)
    assert defaults["optimizer"] is None and defaults["gradient_clip_norm"] == 40.0


@pytest.mark.parametrize("norm", [None, 40.0])
def test_gradient_clip_norm_can_be_read(norm):
    assert agent_of(Unrolls(is_discrete=True), gradient_clip_norm=norm).gradient_clip_norm == norm


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"reduction": "max"}, r"NStepActorCriticAgent\.reduction = 'max' is unknown"),
        ({"reward_scale_factor": 0.0}, r"NStepActorCriticAgent\.reward_scale_factor = 0\.0 must"),
        ({"reward_clipping": "tanh"}, r"NStepActorCriticAgent\.reward_clipping = 'tanh'"),
    ],
)
def test_what_cannot_work_is_refused_by_its_own_name(settings, message):
    with pytest.raises(ConfigurationError, match=message):
        agent_of(Unrolls(is_discrete=True), **settings)
