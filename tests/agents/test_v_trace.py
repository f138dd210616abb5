"""VTraceAgent on tables: losses and gradients from the equations, and what must have no effect."""

import functools

import numpy as np
import oracles
import pytest
import table_networks as tables
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.networks import network
from tf_agents.trajectories import trajectory
from v_trace_equations import (
    ACTIONS,
    BASELINE_COST,
    BATCH,
    ENTROPY_COST,
    LENGTH,
    SIZE,
    Unrolls,
    expected,
)

from tfdrl.errors import ConfigurationError
from tfdrl.networks.actor_critic_networks import MlpActorCriticNetwork
from tfdrl.types import FIRST, LAST, MID

TOLERANCE = {"rtol": 1e-5, "atol": 1e-5}
CORRECTIONS = ("none", "epsilon", "one_step_is", "vtrace")
#: All different, so that none can stand for another.
CLIPS = {"rho_bar": 1.3, "c_bar": 0.9, "pg_rho_bar": 1.1, "lambda_": 0.95}


@pytest.mark.parametrize("is_discrete", [True, False], ids=["discrete", "gaussian"])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
@pytest.mark.parametrize("correction", CORRECTIONS)
def test_loss_and_gradients_from_the_equations(correction, reduction, is_discrete):
    u = Unrolls(is_discrete)
    agent = u.agent(correction=correction, reduction=reduction, **CLIPS)
    info, gradients = tables.loss_and_gradients(agent, u.experience())
    losses, wanted, log_rho = expected(u, correction, **CLIPS)
    scale = 1.0 if reduction == "sum" else 1.0 / (BATCH * LENGTH)
    total = losses["policy"] + BASELINE_COST * losses["value"] - ENTROPY_COST * losses["entropy"]
    np.testing.assert_allclose(info.loss, scale * total, **TOLERANCE)
    np.testing.assert_allclose(info.extra.policy_loss, scale * losses["policy"], **TOLERANCE)
    value_loss = scale * BASELINE_COST * losses["value"]
    np.testing.assert_allclose(info.extra.value_loss, value_loss, **TOLERANCE)
    assert len(gradients) == len(wanted)
    for found, right in zip(gradients, wanted):
        right = scale * right.reshape(found.shape)
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-5)
        assert np.abs(right).max() > 100 * 1e-5
    steps = (u.step_type[:, :-1] != LAST).sum()
    np.testing.assert_allclose(info.extra.entropy, losses["entropy"] / steps, **TOLERANCE)
    np.testing.assert_allclose(info.extra.log_rho, np.abs(log_rho).sum() / steps, **TOLERANCE)
    clipped = (log_rho > np.log(CLIPS["rho_bar"])).sum() / steps
    np.testing.assert_allclose(info.extra.clipped_rhos, clipped, **TOLERANCE)


def oracle_cases():
    return oracles.cases("impala_loss")


def oracle(case):
    return oracles.load("impala_loss", case)


@pytest.mark.parametrize("case", oracle_cases())
def test_oracle(case):
    """Episode ends are discounts of 0 there, without boundary steps: all steps are MID."""
    v = oracle(case)
    name, _, reduction = case.rpartition("_")
    length, batch, actions = v["target_logits"].shape
    values = np.concatenate([v["values"], v["bootstrap_value"][None]]).T
    logits = np.pad(v["target_logits"], [(0, 1), (0, 0), (0, 0)]).swapaxes(0, 1)
    agent = tables.table_agent(
        *(tables.discrete(actions), [logits.reshape(-1, actions)], values.reshape(-1)),
        correction={"no_correction": "none", "eps_correction": "epsilon"}.get(name, name),
        **{"reduction": reduction, "gamma": 1.0, "baseline_cost": float(v["baseline_cost"])},
        entropy_cost=float(v["entropy_cost"]),
    )
    pad = lambda x: np.pad(x.T, [(0, 0), (0, 1)])  # noqa: E731
    step_type = np.full((batch, length + 1), MID, np.int32)
    behaviour = np.pad(v["behaviour_logits"], [(0, 1), (0, 0), (0, 0)]).swapaxes(0, 1)
    experience = trajectory.Trajectory(
        *(tf.constant(step_type), tf.reshape(tf.range(values.size), values.shape)),
        *(tf.constant(pad(v["actions"]), tf.int32), tables.parameters_of([behaviour])),
        *(tf.constant(step_type), tf.constant(pad(v["rewards"]), tf.float32)),
        tf.constant(pad(v["discounts"]), tf.float32),
    )
    info, (by_logits, by_values) = tables.loss_and_gradients(agent, experience)
    np.testing.assert_allclose(info.loss, v["total"], **TOLERANCE)
    np.testing.assert_allclose(info.extra.policy_loss, v["policy_loss"], **TOLERANCE)
    by_logits = by_logits.reshape(logits.shape).swapaxes(0, 1)
    by_values = by_values.reshape(values.shape).T
    np.testing.assert_allclose(by_logits[:-1], v["grad_logits"], **TOLERANCE)
    np.testing.assert_allclose(by_values[:-1], v["grad_values"], **TOLERANCE)
    assert not by_logits[-1].any() and not by_values[-1].any()


def same_loss_and_gradients(u, experience, settings):
    agent = u.agent(**settings)
    before, after = (tables.loss_and_gradients(agent, e) for e in (u.experience(), experience))
    np.testing.assert_array_equal(before[0].loss, after[0].loss)
    for left, right in zip(before[1], after[1]):
        np.testing.assert_array_equal(left, right)


@pytest.mark.parametrize("is_discrete", [True, False], ids=["discrete", "gaussian"])
def test_action_reward_discount_and_info_of_index_T_do_not_matter(is_discrete):
    u = Unrolls(is_discrete)
    same_loss_and_gradients(u, u.experience(filler=2.0), {})


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_what_followed_a_last_step_does_not_matter(correction):
    """Its action was ignored, and what came then belongs to another episode."""
    u = Unrolls(is_discrete=True)
    was_last = u.step_type[:, :-1] == LAST
    assert was_last.sum() == 9
    other = Unrolls(is_discrete=True)
    other.action[was_last] = (other.action[was_last] + 1) % ACTIONS
    other.reward[was_last] = 1e3
    other.discount[was_last] = 7.0
    other.behaviour[0][:, :-1][was_last] = [-50.0, 3.0, 20.0]
    same_loss_and_gradients(u, other.experience(), {"correction": correction})


@pytest.mark.parametrize("correction", CORRECTIONS)
@pytest.mark.parametrize(("discount", "v_0"), [(1.0, 1 + 0.5 * 8), (0.0, 1.0)])
def test_truncation_bootstraps_from_the_last_observation(correction, discount, v_0):
    """first -> last | first -> mid: rewards 1 and 2; V = 3, 8, 40, 16; on-policy, gamma = 1/2.

    The advantage of the first step is v_0 - 3. The third's is 2 + 16 / 2 - 40.
    """
    step_type = tf.constant([[FIRST, LAST, FIRST, MID]])
    agent = tables.table_agent(
        *(tables.discrete(2), [np.zeros((4, 2))], [3.0, 8.0, 40.0, 16.0]),
        **{"gamma": 0.5, "correction": correction, "baseline_cost": 1.0, "entropy_cost": 0.0},
    )
    experience = trajectory.Trajectory(
        *(step_type, tf.constant([[0, 1, 2, 3]]), tf.zeros([1, 4], tf.int32)),
        *(tables.parameters_of([np.zeros((1, 4, 2))]), step_type),
        *(tf.constant([[1.0, 0.0, 2.0, 0.0]]), tf.constant([[discount, 1.0, 1.0, 1.0]])),
    )
    info, (by_logits, by_values) = tables.loss_and_gradients(agent, experience)
    errors = np.array([v_0 - 3.0, 0.0, 2.0 + 8.0 - 40.0, 0.0])
    np.testing.assert_allclose(by_values, -errors, rtol=1e-4)
    np.testing.assert_allclose(by_logits[:, 0], -errors / 2, rtol=1e-4)
    np.testing.assert_allclose(info.extra.value_loss, (errors**2).sum() / 2, rtol=1e-5)
    np.testing.assert_allclose(info.extra.policy_loss, np.log(2) * errors.sum(), rtol=1e-4)


def test_no_gradient_into_the_behaviour_the_rewards_or_the_targets():
    """That none flows through the targets into the values, the equations above show."""
    u = Unrolls(is_discrete=False)
    agent, experience = u.agent(**CLIPS), u.experience()
    behaviour = tf.nest.flatten(experience.policy_info)
    with tf.GradientTape() as tape:
        tape.watch([*behaviour, experience.reward, experience.discount])
        loss = agent.loss(experience, training=True).loss
    assert tape.gradient(loss, [*behaviour, experience.reward, experience.discount]) == [None] * 4


@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_weights_are_of_unrolls(reduction):
    u = Unrolls(is_discrete=True)
    agent, experience = u.agent(reduction=reduction), u.experience()
    weights = np.random.default_rng(1).random((2, BATCH)).astype(np.float32)
    of = functools.partial(tables.loss_and_gradients, agent, experience)
    parts = [of(weights=row) for row in np.eye(BATCH, dtype=np.float32)]
    for row in weights:
        info, gradients = of(weights=row)
        wanted = sum(w * part.loss for w, (part, _) in zip(row, parts))
        np.testing.assert_allclose(info.loss, wanted, **TOLERANCE)
        for k, gradient in enumerate(gradients):
            wanted = sum(w * part[k] for w, (_, part) in zip(row, parts))
            np.testing.assert_allclose(gradient, wanted, **TOLERANCE)
    whole, ones = (of(weights=w)[0].loss for w in (None, np.ones(BATCH, np.float32)))
    np.testing.assert_array_equal(whole, ones)
    info, gradients = of(weights=np.zeros(BATCH, np.float32))
    assert info.loss == 0 and not any(gradient.any() for gradient in gradients)


@pytest.mark.parametrize(
    ("kind", "transform"),
    [
        ("abs_one", lambda r: np.clip(r, -1, 1)),
        ("soft_asymmetric", lambda r: np.where(r < 0, 0.3, 1.0) * 5 * np.tanh(r / 5)),
        ("asymmetric_paper", lambda r: np.where(r < 0, 0.3, 5.0) * np.tanh(r)),
    ],
)
def test_reward_clipping(kind, transform):
    u, clipped = Unrolls(is_discrete=True), Unrolls(is_discrete=True)
    clipped.reward = transform(u.reward)
    found = u.agent(reward_clipping=kind).loss(u.experience()).loss
    np.testing.assert_allclose(found, u.agent().loss(clipped.experience()).loss, **TOLERANCE)
    assert np.abs(found - u.agent().loss(u.experience()).loss) > 0.1


def test_rewards_are_scaled_before_they_are_clipped():
    u, scaled = Unrolls(is_discrete=True), Unrolls(is_discrete=True)
    scaled.reward = np.clip(3.0 * u.reward, -1, 1)
    assert (np.abs(u.reward) < 1 / 3).any() and (np.abs(3.0 * u.reward) > 1).any()
    agent = u.agent(reward_clipping="abs_one", reward_scale_factor=3.0)
    wanted = u.agent().loss(scaled.experience()).loss
    np.testing.assert_allclose(agent.loss(u.experience()).loss, wanted, **TOLERANCE)


def test_a_training_step_is_the_gradient_step():
    u = Unrolls(is_discrete=True)
    agent, experience = u.agent(), u.experience()
    before = [variable.numpy() for variable in agent.network.variables]
    info, gradients = tables.loss_and_gradients(agent, experience)
    trained = agent.train(experience)
    np.testing.assert_allclose(trained.loss, info.loss, rtol=1e-6)
    norm = np.sqrt(sum((gradient**2).sum() for gradient in gradients))
    np.testing.assert_allclose(trained.extra.gradient_norm, norm, rtol=1e-5)
    for variable, old, gradient in zip(agent.network.variables, before, gradients):
        np.testing.assert_allclose(variable.numpy(), old - gradient, **TOLERANCE)
    assert agent.train_step_counter.numpy() == 1


class Regularised(tables.TableNetwork):
    @property
    def losses(self):
        return [2.0 * self.table_of_values[0], tf.constant(0.25)]


def test_regularisation_of_the_network_is_in_the_loss():
    u = Unrolls(is_discrete=True)
    agent, plain = u.agent(network=Regularised), u.agent()
    difference = agent.loss(u.experience()).loss - plain._loss(u.experience()).loss
    np.testing.assert_allclose(difference, 2 * u.values[0, 0] + 0.25, rtol=1e-4)


class Squashed(network.Network):
    """Its tanh leaves no closed form of the entropy."""

    def __init__(self, input_spec, action_spec, name="Squashed"):
        super().__init__(input_spec, state_spec=(), name=name)
        self.mean = tf.Variable(tf.zeros([SIZE]))

    def call(self, observation, step_type=None, network_state=(), training=False):
        mean = tf.zeros_like(tf.cast(observation, tf.float32))[..., None] + self.mean
        normal = tfp.distributions.MultivariateNormalDiag(mean, tf.ones_like(mean))
        squashed = tfp.distributions.TransformedDistribution(normal, tfp.bijectors.Tanh())
        return (squashed, tf.reduce_sum(mean, axis=-1)), network_state


def test_an_entropy_that_is_not_known_needs_a_cost_of_0():
    u = Unrolls(is_discrete=False)
    u.action = np.tanh(u.action)
    found = []
    for cost in (0.01, 0.0):
        agent = tables.make_agent(
            tables.continuous(SIZE), Squashed, tables.numbers(u.values.size), entropy_cost=cost
        )
        info = tf.nest.map_structure(
            lambda spec: tf.ones([BATCH, LENGTH + 1, *spec.shape]), agent._info_spec
        )
        experience = u.experience()._replace(policy_info=info)
        if cost:
            with pytest.raises(ConfigurationError, match=r"entropy_cost = 0\.01.*set it to 0"):
                agent.loss(experience)
        else:
            found.append(agent.loss(experience))
    assert np.isfinite(found[0].loss) and found[0].extra.entropy == 0


class WithoutBatch(Squashed):
    """Its deviation is one for all: [d] instead of [B, d]."""

    def call(self, observation, step_type=None, network_state=(), training=False):
        mean = tf.zeros_like(tf.cast(observation, tf.float32))[..., None] + self.mean
        normal = tfp.distributions.MultivariateNormalDiag(mean, tf.ones([SIZE]))
        return (normal, tf.reduce_sum(mean, axis=-1)), network_state


def test_every_parameter_needs_the_batch_dimension():
    """An actor could not say of which environment it is."""
    with pytest.raises(ConfigurationError, match=r"scale_diag has the shape \[2\], not \[B"):
        tables.make_agent(tables.continuous(SIZE), WithoutBatch, tables.numbers(1))


def three_logits(input_spec, action_spec):
    return MlpActorCriticNetwork(input_spec, tables.discrete(3), layer_units=())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"correction": "v_trace"}, "correction = 'v_trace' is unknown; .*one_step_is, vtrace"),
        ({"reduction": "max"}, "reduction = 'max' is unknown; use one of sum, mean"),
        ({"reward_scale_factor": 0.0}, "reward_scale_factor = 0.0 must be positive"),
        ({"reward_clipping": "tanh"}, "reward_clipping = 'tanh' is unknown; .*soft_asymmetric"),
        ({"rho_bar": 0.5}, r"rho_bar = 0\.5 is below c_bar = 1\.0.*lower c_bar or raise rho_bar"),
        ({"c_bar": None}, r"rho_bar = 1\.0 is below c_bar = None"),
        ({"rho_bar": 0.0}, r"rho_bar = 0\.0 must be positive, or None"),
        ({"c_bar": -1.0}, r"c_bar = -1\.0 must be positive"),
        ({"pg_rho_bar": float("nan")}, "pg_rho_bar = nan must be positive"),
        ({"lambda_": 1.5}, r"lambda_ = 1\.5 must be between 0 and 1"),
        ({"lambda_": float("nan")}, "lambda_ = nan must be between 0 and 1"),
        ({"network": three_logits}, "logits of the wrong size: 3, but there are 2 actions"),
    ],
)
def test_what_cannot_work_is_refused(settings, message):
    network = settings.pop("network", lambda i, a: tables.TableNetwork(i, a, states=1))
    with pytest.raises(ConfigurationError, match=message):
        tables.make_agent(tables.discrete(2), network, tables.numbers(1), **settings)


@pytest.mark.parametrize("clips", [{"rho_bar": None}, {"rho_bar": None, "c_bar": None}])
def test_clips_that_are_off(clips):
    u = Unrolls(is_discrete=True)
    agent = u.agent(**clips, pg_rho_bar=None)
    found = agent.loss(u.experience())
    c_bar = clips.get("c_bar", 1.0)
    clips = {"rho_bar": np.inf, "c_bar": np.inf if c_bar is None else c_bar, "lambda_": 1.0}
    losses, _, _ = expected(u, "vtrace", pg_rho_bar=np.inf, **clips)
    np.testing.assert_allclose(found.extra.policy_loss, losses["policy"], rtol=1e-4)
    np.testing.assert_allclose(found.extra.value_loss, BASELINE_COST * losses["value"], rtol=1e-4)
    assert found.extra.clipped_rhos == 0
