"""Agents under action masks: what acts, and what losses bootstrap from, is never forbidden.

The values and logits of forbidden actions are the largest everywhere, so that whoever looks at
one shows it.
"""

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_probability as tfp
from tf_agents.networks import network
from tf_agents.specs import BoundedTensorSpec
from tf_agents.trajectories import time_step as ts
from tf_agents.trajectories import trajectory

from tfdrl.agents.masked_network import splitter_of
from tfdrl.agents.n_step_actor_critic import NStepActorCriticAgent
from tfdrl.agents.n_step_dqn import NStepDqnAgent
from tfdrl.agents.n_step_q import NStepQAgent
from tfdrl.agents.r2d2 import R2D2Agent
from tfdrl.agents.v_trace import VTraceAgent
from tfdrl.errors import ConfigurationError
from tfdrl.networks.actor_critic_networks import MlpActorCriticNetwork
from tfdrl.networks.q_networks import MlpQNetwork
from tfdrl.networks.recurrent_q_networks import MlpRecurrentQNetwork
from tfdrl.types import LAST, MID

ACTIONS, STATES, N = 4, 30, 2000
GAMMA = 0.9
TEMPTING, HOPELESS = 50.0, -5e3
DISCRETE = BoundedTensorSpec([], tf.int32, 0, ACTIONS - 1)
MASK_SPEC = BoundedTensorSpec([ACTIONS], tf.uint8, 0, 1)
AGENTS = {
    NStepDqnAgent: MlpQNetwork,
    NStepQAgent: MlpQNetwork,
    R2D2Agent: MlpRecurrentQNetwork,
    VTraceAgent: MlpActorCriticNetwork,
    NStepActorCriticAgent: MlpActorCriticNetwork,
}


def make(agent, network, observation_spec=None, action_spec=DISCRETE, **settings):
    defaults = {
        "optimizer": tf.keras.optimizers.SGD(0.1),
        "observation_and_action_constraint_splitter": splitter_of("action_mask"),
        "train_step_counter": tf.Variable(0, dtype=tf.int64),
        "gamma": GAMMA,
    }
    spec = observation_spec or {"action_mask": MASK_SPEC, "observation": tf.TensorSpec([3])}
    made = agent(ts.time_step_spec(spec), action_spec, network=network, **{**defaults, **settings})
    made.initialize()
    return made


def random_masks(*outer, seed=0):
    """<uint8>[..., A], of each row one to three allowed."""
    generator = np.random.default_rng(seed)
    ranks = generator.random((*outer, ACTIONS)).argsort(axis=-1)
    return (ranks < generator.integers(1, ACTIONS, (*outer, 1))).astype(np.uint8)


def steps_of(mask, observation=None):
    count = len(mask)
    if observation is None:
        observation = np.random.default_rng(1).normal(size=(count, 3)).astype(np.float32)
    whole = {"observation": tf.constant(observation), "action_mask": tf.constant(mask)}
    return ts.TimeStep(tf.fill([count], MID), tf.zeros([count]), tf.ones([count]), whole)


def policies(agent, epsilon=0.7):
    return agent.policy, agent.collect_policy, agent.actor_policy(np.full(N, epsilon), 3)


@pytest.mark.parametrize("agent", AGENTS)
def test_no_policy_takes_a_forbidden_action(agent):
    made, mask = make(agent, AGENTS[agent]), random_masks(N)
    for policy in policies(made):
        state, counts = policy.get_initial_state(N), np.zeros(2)
        for _ in range(3):
            step = policy.action(steps_of(mask), state)
            counts += np.bincount(mask[np.arange(N), step.action], minlength=2)
            state = step.state
        np.testing.assert_array_equal(counts, [0, 3 * N])


@pytest.mark.parametrize("agent", AGENTS)
def test_not_even_of_a_network_that_says_nan(agent):
    made, mask = make(agent, AGENTS[agent]), random_masks(N)
    for variable in made.policy.variables():
        if variable.dtype == tf.float32 and variable.shape.rank:
            variable.assign(tf.fill(variable.shape, float("nan")))
    policy = made.actor_policy(np.full(N, 0.7), 3)
    action = policy.action(steps_of(mask), policy.get_initial_state(N)).action
    assert mask[np.arange(N), action].all()


@pytest.mark.parametrize("agent", [NStepDqnAgent, NStepQAgent, R2D2Agent])
def test_random_actions_are_uniform_over_what_is_allowed(agent):
    mask = np.tile(np.uint8([1, 0, 1, 1]), [N, 1])
    policy = make(agent, AGENTS[agent]).actor_policy(np.ones(N), 3)
    state = policy.get_initial_state(N)
    actions = [policy.action(steps_of(mask), state).action for _ in range(3)]
    shares = np.bincount(np.concatenate(actions), minlength=ACTIONS) / (3 * N)
    deviation = np.sqrt(1 / 3 * 2 / 3 / (3 * N))
    np.testing.assert_allclose(shares, [1 / 3, 0, 1 / 3, 1 / 3], atol=4 * deviation)


@pytest.mark.parametrize("agent", AGENTS)
def test_networks_see_the_observation_without_the_mask(agent):
    """One part that is left comes as it is, several as a Dict."""
    seen = []

    def recorded(input_spec, action_spec):
        seen.append(getattr(input_spec, "observation", input_spec))
        return AGENTS[agent](input_spec, action_spec)

    make(agent, recorded)
    parts = {"board": tf.TensorSpec([5]), "turn": tf.TensorSpec([])}
    make(agent, recorded, {**parts, "action_mask": MASK_SPEC})
    assert seen[0] == tf.TensorSpec([3]) and seen[-1] == parts


class Table(network.Network):
    """The rows of the states; the observation is a state's number."""

    def __init__(self, input_spec, action_spec, with_value, name="Table"):
        super().__init__(input_spec, state_spec=(), name=name)
        self.rows = tf.Variable(tf.zeros([STATES, ACTIONS]))
        self.values = tf.Variable(tf.zeros([STATES])) if with_value else None

    def call(self, observation, step_type=None, network_state=(), training=False):
        state = getattr(observation, "observation", observation)
        rows = tf.gather(self.rows, state)
        if self.values is None:
            return rows, network_state
        pi = tfp.distributions.Categorical(logits=rows, dtype=tf.int32)
        return (pi, tf.gather(self.values, state)), network_state


def table_agent(agent, rows, target_rows=None, values=None, **settings):
    numbers = BoundedTensorSpec([], tf.int32, 0, STATES - 1)
    made = make(
        agent,
        lambda spec, action_spec: Table(spec, action_spec, values is not None),
        {"action_mask": MASK_SPEC, "observation": numbers},
        **{"gradient_clip_norm": None, **settings},
    )
    if agent is NStepDqnAgent:
        online, target = made._q_network._network, made._target_q_network._network
    else:
        online, target = made._network._network, getattr(made, "_target", None)
        target = target and target._network
    online.rows.assign(rows)
    if target is not None:
        target.rows.assign(target_rows)
    if values is not None:
        online.values.assign(values)
    return made, online


def masked_tables(mask, value):
    """Two tables [S, A] that differ where allowed, and have `value` wherever not."""
    tables = np.random.default_rng(5).normal(size=(2, STATES, ACTIONS)).astype(np.float32)
    return np.where(mask, tables, np.float32(value))


@pytest.mark.parametrize("double", [True, False])
def test_dqn_bootstraps_from_the_best_allowed_action(double):
    size = STATES // 2
    mask, generator = random_masks(STATES), np.random.default_rng(2)
    q, q_target = masked_tables(mask, TEMPTING)
    agent, _ = table_agent(NStepDqnAgent, q, q_target, double=double)
    s_t, s_tpm = np.arange(size), size + np.arange(size)
    action = mask[s_t].argmax(axis=1)
    reward, discount = generator.normal(size=size), generator.random(size)
    pair = lambda x, y: tf.constant(np.stack([x, y], axis=1))  # noqa: E731
    of = lambda x, dtype: pair(x.astype(dtype), x.astype(dtype))  # noqa: E731
    mid = tf.fill([size, 2], MID)
    batch = trajectory.Trajectory(
        step_type=mid,
        observation={
            "observation": pair(s_t.astype(np.int32), s_tpm.astype(np.int32)),
            "action_mask": pair(mask[s_t], mask[s_tpm]),
        },
        action=of(action, np.int32),
        policy_info=(),
        next_step_type=mid,
        reward=of(reward, np.float32),
        discount=of(discount, np.float32),
    )
    wanted = np.zeros(size)
    for i in range(size):
        allowed = np.flatnonzero(mask[s_tpm[i]])
        by = (q if double else q_target)[s_tpm[i], allowed]
        best = q_target[s_tpm[i], allowed[by.argmax()]]
        wanted[i] = reward[i] + GAMMA * discount[i] * best - q[s_t[i], action[i]]
    td_error = agent.loss(batch).extra.td_error
    np.testing.assert_allclose(td_error, wanted, rtol=1e-4, atol=1e-5)


def unrolls(mask, logits=None, batch=5, length=STATES // 5):
    """Trajectory [B, T+1] through all states; every action is an allowed one."""
    generator = np.random.default_rng(4)
    shape = (batch, length)
    action = action_of(mask, generator)
    step_type = np.full(shape, MID, np.int32)
    step_type[1, 3] = LAST
    info = {"logits": tf.constant(logits.reshape(*shape, ACTIONS))} if logits is not None else ()
    return tf.nest.map_structure(
        tf.convert_to_tensor,
        trajectory.Trajectory(
            step_type=step_type,
            observation={
                "observation": np.arange(STATES, dtype=np.int32).reshape(shape),
                "action_mask": mask.reshape(*shape, ACTIONS),
            },
            action=action.reshape(shape),
            policy_info=info,
            next_step_type=np.full(shape, MID, np.int32),
            reward=generator.normal(size=shape).astype(np.float32),
            discount=np.ones(shape, np.float32),
        ),
    )


def action_of(mask, generator):
    return (generator.random(mask.shape) * mask).argmax(axis=-1).astype(np.int32)


def loss_and_gradient(agent, table, experience):
    with tf.GradientTape() as tape:
        loss = agent.loss(experience, training=True).loss
    return loss.numpy(), tf.convert_to_tensor(tape.gradient(loss, table.rows)).numpy()


@pytest.mark.parametrize("double", [True, False])
def test_n_step_q_bootstraps_from_the_best_allowed_action(double):
    _check_against_hopeless(NStepQAgent, double=double, n_step=2)


def test_r2d2_bootstraps_from_the_best_allowed_action():
    _check_against_hopeless(R2D2Agent, burn_in_steps=2, n_step=2)


def _check_against_hopeless(agent, **settings):
    """As if forbidden actions had values so low that no maximum is of them."""
    mask = random_masks(STATES)
    everything = np.ones_like(mask)
    experience = unrolls(mask)
    unmasked = experience._replace(
        observation={**experience.observation, "action_mask": everything.reshape(5, -1, ACTIONS)}
    )
    tempting, plain = (
        table_agent(agent, *masked_tables(mask, value), **settings)
        for value in (TEMPTING, HOPELESS)
    )
    loss, gradient = loss_and_gradient(*tempting, experience)
    wanted_loss, wanted_gradient = loss_and_gradient(*plain, unmasked)
    np.testing.assert_allclose(loss, wanted_loss, rtol=1e-5)
    np.testing.assert_allclose(gradient, wanted_gradient, rtol=1e-5, atol=1e-6)
    assert np.abs(gradient).max() > 1e-3 and (gradient[mask == 0] == 0.0).all()
    wrong_loss, _ = loss_and_gradient(*tempting, unmasked)
    assert abs(wrong_loss - loss) > 0.1


@pytest.mark.parametrize("agent", [VTraceAgent, NStepActorCriticAgent])
def test_actor_critic_learns_over_what_is_allowed(agent):
    """Policy, entropy and ratios are those of logits that forbid: softmax(-5000) is 0."""
    mask, generator = random_masks(STATES), np.random.default_rng(6)
    tempting, plain = masked_tables(mask, TEMPTING)[0], masked_tables(mask, HOPELESS)[0]
    behaviour = np.where(mask, generator.normal(size=mask.shape), np.finfo(np.float32).min)
    experience = unrolls(mask, behaviour.astype(np.float32))
    unmasked = experience._replace(
        observation={
            **experience.observation,
            "action_mask": np.ones([5, STATES // 5, ACTIONS], np.uint8),
        }
    )
    values = generator.normal(size=STATES)
    loss, gradient = loss_and_gradient(*table_agent(agent, tempting, values=values), experience)
    wanted = loss_and_gradient(*table_agent(agent, plain, values=values), unmasked)
    np.testing.assert_allclose(loss, wanted[0], rtol=1e-5)
    np.testing.assert_allclose(gradient, wanted[1], rtol=1e-4, atol=1e-5)
    assert np.abs(gradient).max() > 1e-2 and (gradient[mask == 0] == 0.0).all()


@pytest.mark.parametrize("agent", AGENTS)
def test_steps_that_allow_nothing_leave_everything_finite(agent):
    """The end of a game, and the zeros with which sequences are filled up."""
    has_value = agent in (VTraceAgent, NStepActorCriticAgent)
    made, table = table_agent(
        agent,
        *masked_tables(np.ones([STATES, ACTIONS]), 0.0)[: 1 if has_value else 2],
        **({"values": np.zeros(STATES)} if has_value else {}),
        **({"burn_in_steps": 2, "n_step": 2} if agent is R2D2Agent else {}),
    )
    nothing = np.zeros([STATES, ACTIONS], np.uint8)
    experience = unrolls(nothing, np.zeros([STATES, ACTIONS], np.float32) if has_value else None)
    if agent is NStepDqnAgent:
        experience = tf.nest.map_structure(lambda leaf: leaf[:, :2], experience)
    loss, gradient = loss_and_gradient(made, table, experience)
    assert np.isfinite(loss) and np.isfinite(gradient).all()


@pytest.mark.parametrize("agent", AGENTS)
@pytest.mark.parametrize(
    ("splitter", "said"),
    [
        (lambda o: (o["observation"], o["mask"]), "KeyError: 'mask'"),
        (lambda o: (o["action_mask"], o["observation"]), "for each of the 4 actions is needed"),
        (lambda o: o["observation"], r"must give \(observation, mask\)"),
    ],
)
def test_a_splitter_that_gives_no_mask_is_refused(agent, splitter, said):
    with pytest.raises(ConfigurationError, match=said) as refused:
        make(agent, AGENTS[agent], observation_and_action_constraint_splitter=splitter)
    assert f"{agent.__name__}.observation_and_action" in str(refused.value)


@pytest.mark.parametrize("agent", [VTraceAgent, NStepActorCriticAgent])
def test_continuous_actions_have_no_mask(agent):
    with pytest.raises(ConfigurationError, match="values of a discrete action"):
        make(agent, AGENTS[agent], action_spec=BoundedTensorSpec([ACTIONS], tf.float32, -1, 1))


def test_a_policy_that_is_no_categorical_cannot_be_masked():
    class Deterministic(Table):
        def call(self, observation, step_type=None, network_state=(), training=False):
            (pi, value), state = super().call(observation, step_type, network_state)
            return (tfp.distributions.Deterministic(pi.mode()), value), state

    with pytest.raises(ConfigurationError, match="of independent ones, but the network"):
        make(
            VTraceAgent,
            lambda spec, action_spec: Deterministic(spec, action_spec, True),
            {"action_mask": MASK_SPEC, "observation": BoundedTensorSpec([], tf.int32, 0, 9)},
        )
