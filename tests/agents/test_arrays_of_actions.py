"""MultiDiscrete actions: losses of a product of categoricals, and a task that needs each part."""

import functools

import gymnasium
import numpy as np
import pytest
import table_networks as tables
import tensorflow as tf
from gymnasium import spaces
from tf_agents.agents.ppo import ppo_clip_agent
from tf_agents.networks import actor_distribution_network, network, value_network
from tf_agents.specs import BoundedTensorSpec
from tf_agents.trajectories import trajectory
from v_trace_equations import BATCH, LENGTH, Unrolls

from tfdrl.agents import actor_critic_policy as acp
from tfdrl.agents.masked_network import MaskedNetwork, splitter_of
from tfdrl.agents.n_step_actor_critic import NStepActorCriticAgent
from tfdrl.agents.n_step_dqn import NStepDqnAgent
from tfdrl.agents.n_step_q import NStepQAgent
from tfdrl.agents.r2d2 import R2D2Agent
from tfdrl.agents.v_trace import VTraceAgent
from tfdrl.agents.with_networks import agent_with_networks
from tfdrl.environments import gym_environment
from tfdrl.errors import ConfigurationError
from tfdrl.experience.unroll_assembler import UnrollAssembler
from tfdrl.experience.unroll_batches import to_batch, train_arguments
from tfdrl.networks.actor_critic_adapters import KerasActorCriticNetwork, SeparateActorCriticNetwork
from tfdrl.networks.actor_critic_heads import categorical
from tfdrl.networks.actor_critic_networks import MlpActorCriticNetwork, check_distribution
from tfdrl.networks.continuous_networks import mlp_value
from tfdrl.networks.policy_networks import MlpPolicyNetwork
from tfdrl.runtime import agent_factory
from tfdrl.runtime.compiled import act_function

COUNTS = np.array([2, 3])
ARRAY = BoundedTensorSpec([2], tf.int32, 0, COUNTS - 1)
JOINT = tables.discrete(6)


class LookUp(network.Network):
    """Logits and values of each state from tables; see `table_networks.TableNetwork`."""

    def __init__(self, input_spec, action_spec, logits, values, name="LookUp"):
        super().__init__(input_spec, state_spec=(), name=name)
        self._action_spec = action_spec
        self._tables = [tf.Variable(x, dtype=tf.float32) for x in (logits, values)]

    def call(self, observation, step_type=None, network_state=(), training=False):
        logits, values = (tf.gather(table, observation) for table in self._tables)
        return (categorical(logits, self._action_spec), values), network_state


def info_and_gradient(unrolls, spec, policy, behaviour, action):
    """VTraceAgent's loss; gradients by the values of states."""
    flat = policy.reshape(-1, policy.shape[-1])
    values = unrolls.values.reshape(-1)
    agent = tables.make_agent(
        spec,
        lambda i, a: LookUp(i, a, flat, values),
        tables.numbers(len(values)),
        entropy_cost=0.05,
        rho_bar=1.3,
        c_bar=0.9,
    )
    like = unrolls.experience()
    behaviour = acp.parameters(categorical(tf.constant(behaviour, tf.float32), spec))
    experience = trajectory.Trajectory(
        **{**like._asdict(), "action": tf.constant(action, tf.int32), "policy_info": behaviour}
    )
    info, gradients = tables.loss_and_gradients(agent, experience)
    return info, gradients


def test_the_losses_are_those_of_one_categorical_over_all_combinations():
    """pi(i, j) = pi(i) pi(j) has the logits x_i + y_j."""
    unrolls = Unrolls(is_discrete=True)
    random = np.random.default_rng(1)
    outer = (BATCH, LENGTH + 1)
    policy, behaviour = random.normal(size=(2, *outer, 5))
    action = random.integers(0, COUNTS, (*outer, 2))

    def joint(logits):
        return (logits[..., :2, None] + logits[..., None, 2:]).reshape(*outer, 6)

    of_array, (logits_gradient, values_gradient) = info_and_gradient(
        unrolls, ARRAY, policy, behaviour, action
    )
    of_joint, (joint_gradient, expected) = info_and_gradient(
        unrolls, JOINT, joint(policy), joint(behaviour), action[..., 0] * 3 + action[..., 1]
    )
    for found, right in zip(tf.nest.flatten(of_array), tf.nest.flatten(of_joint)):
        np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-5)
    assert of_array.extra.log_rho > 0.1 and 0.1 < of_array.extra.clipped_rhos < 0.9
    np.testing.assert_allclose(values_gradient, expected, rtol=1e-4, atol=1e-5)
    by_pair = joint_gradient.reshape(-1, 2, 3)
    by_part = np.concatenate([by_pair.sum(axis=2), by_pair.sum(axis=1)], axis=1)
    np.testing.assert_allclose(logits_gradient, by_part, rtol=1e-4, atol=1e-5)


def test_last_actions_are_the_one_hot_vectors_of_all_elements():
    step_type = tf.constant([[1, 0]])
    last_action = tf.constant([[[1, 2], [1, 1]]])
    given = acp.network_input(
        tf.zeros([1, 2, 4]), step_type, last_action, tf.ones([1, 2]), ARRAY, 1.0
    )
    np.testing.assert_array_equal(given.last_action, [[[0, 1, 0, 0, 1], [0, 0, 0, 0, 0]]])
    assert acp.input_spec(tf.TensorSpec([4]), ARRAY, True).last_action.shape == [5]


def test_several_actions_have_no_last_one():
    with pytest.raises(ConfigurationError, match="last action where there is one"):
        acp.input_spec(tf.TensorSpec([4]), {"move": ARRAY, "aim": ARRAY}, True)


def linear_model(spec, parameters):
    observation = tf.keras.Input(spec.shape)
    policy, value = (tf.keras.layers.Dense(units)(observation) for units in (parameters, 1))
    return tf.keras.Model(observation, (policy, value))


def separate(actor):
    return functools.partial(
        SeparateActorCriticNetwork, actor=actor, critic=value_network.ValueNetwork
    )


@pytest.mark.parametrize(
    ("make", "counts"),
    [
        (functools.partial(KerasActorCriticNetwork, model=linear_model), [2, 3]),
        (separate(MlpPolicyNetwork), [2, 3]),
        (separate(actor_distribution_network.ActorDistributionNetwork), [3, 3]),
    ],
    ids=["Keras", "policy and value", "TF-Agents"],
)
def test_other_networks(make, counts):
    spec = BoundedTensorSpec([2], tf.int32, 0, np.array(counts) - 1)
    check_distribution(make(tf.TensorSpec([4], tf.float32), spec), spec)


def test_tf_agents_actor_refuses_different_counts_with_the_cure():
    make = separate(actor_distribution_network.ActorDistributionNetwork)
    with pytest.raises(ConfigurationError, match="@MlpPolicyNetwork"):
        make(tf.TensorSpec([4], tf.float32), ARRAY)


class Keypad(gymnasium.Env):
    """Shows two numbers to press; each right one gives 1/2. Four times: the best return is 4.

    Masked, it allows the right ones and, one time in two, each of the others; info has the masks.
    """

    observation_space = spaces.MultiDiscrete(COUNTS)
    action_space = spaces.MultiDiscrete(COUNTS, start=[5, -1])

    def __init__(self, is_masked=False):
        self.is_masked = is_masked

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.show(), self.info

    def step(self, action):
        assert self.action_space.contains(action)
        for mask, pressed in zip(self.masks, action - self.action_space.start):
            assert mask[pressed] or not self.is_masked, "a forbidden action"
        reward = 0.5 * np.sum(action - self.action_space.start == self.wanted)
        self.t += 1
        return self.show(), float(reward), self.t == 4, False, self.info

    def show(self):
        self.wanted = self.np_random.integers(0, COUNTS)
        self.masks = tuple(self.np_random.integers(0, 2, n).astype(np.int8) for n in COUNTS)
        for mask, wanted in zip(self.masks, self.wanted):
            mask[wanted] = 1
        return self.wanted

    @property
    def info(self):
        return {"action_mask": self.masks} if self.is_masked else {}


@pytest.fixture(params=[False])
def keypad(request):
    gymnasium.register("tfdrl_tests/Keypad-v0", entry_point=Keypad)
    with gym_environment(
        *(16, True, 1),
        id="tfdrl_tests/Keypad-v0",
        kwargs={"is_masked": request.param},
        action_mask="action_mask" if request.param else None,
    ) as environment:
        yield environment
    del gymnasium.registry["tfdrl_tests/Keypad-v0"]


masked = pytest.mark.parametrize("keypad", [True], indirect=True)


def v_trace(*specs, **kwargs):
    return VTraceAgent(
        *specs,
        network=functools.partial(MlpActorCriticNetwork, layer_units=(16,)),
        optimizer=tf.keras.optimizers.Adam(2e-2),
        reduction="mean",
        gamma=0.5,
        last_action_and_reward=True,
        **kwargs,
    )


class Ppo(ppo_clip_agent.PPOClipAgent):
    """As gin would bind it."""

    def __init__(self, *args, **kwargs):
        super().__init__(
            *args,
            optimizer=tf.keras.optimizers.Adam(2e-2),
            discount_factor=0.5,
            num_epochs=4,
            normalize_observations=False,
            normalize_rewards=False,
            **kwargs,
        )


def ppo(*specs, **kwargs):
    networks = {"actor_net": MlpPolicyNetwork, "value_net": mlp_value}
    return agent_with_networks(*specs, agent=Ppo, networks=networks, **kwargs)


def a3c(*specs, **kwargs):
    network = functools.partial(MlpActorCriticNetwork, layer_units=(16,))
    return NStepActorCriticAgent(*specs, network=network, **kwargs)


@masked
@pytest.mark.parametrize("make", [v_trace, a3c, ppo])
def test_no_element_of_an_action_is_a_forbidden_one(make, keypad):
    """Keypad fails at the first."""
    agent = agent_factory.make_agent(make, keypad)
    for policy in (agent.collect_policy, agent.policy):
        act, state, now = act_function(policy), policy.get_initial_state(16), keypad.reset()
        for _ in range(12):
            step = act(*now, state)
            now, state = keypad.step(step.action.numpy()), step.state


@masked
def test_not_even_of_a_network_that_says_nan(keypad):
    agent = agent_factory.make_agent(v_trace, keypad)
    for variable in agent.policy.variables():
        if variable.dtype == tf.float32:
            variable.assign(tf.fill(variable.shape, float("nan")))
    act, state, now = act_function(agent.policy), agent.policy.get_initial_state(16), keypad.reset()
    for _ in range(12):
        now = keypad.step(act(*now, state).action.numpy())


def test_probabilities_are_those_of_what_is_allowed():
    """Of each element by itself: log-probabilities of pairs add up, and entropies."""
    random = np.random.default_rng(0)
    logits, mask = random.normal(size=(9, 5)).astype(np.float32), np.ones((9, 5), np.uint8)
    for row in mask:
        row[random.integers(2)] = row[2 + random.integers(3)] = 0
    spec = {"mask": tf.TensorSpec([5], tf.uint8), "logits": tf.TensorSpec([5])}

    def network_of(input_spec, action_spec):
        return Given(input_spec, action_spec)

    made = MaskedNetwork(spec, ARRAY, network_of, splitter_of("mask"), "VTraceAgent")
    (found, _), _ = made({"mask": tf.constant(mask), "logits": tf.constant(logits)})
    exp = np.exp(logits) * mask
    parts = [exp[:, :2], exp[:, 2:]]
    parts = [part / part.sum(axis=1, keepdims=True) for part in parts]
    for i in range(2):
        for j in range(3):
            expected = parts[0][:, i] * parts[1][:, j]
            pair = tf.tile([[i, j]], [9, 1])
            np.testing.assert_allclose(found.prob(pair), expected, rtol=1e-5, atol=1e-7)
    entropy = [-np.sum(np.where(p > 0, p * np.log(np.maximum(p, 1e-9)), 0), 1) for p in parts]
    np.testing.assert_allclose(found.entropy(), sum(entropy), rtol=1e-5)


class Given(network.Network):
    """The logits that it is given."""

    def __init__(self, input_spec, action_spec, name="Given"):
        super().__init__(input_spec, state_spec=(), name=name)
        self._action_spec = action_spec

    def call(self, observation, step_type=None, network_state=(), training=False):
        return (categorical(observation, self._action_spec), 0.0), network_state


@pytest.mark.parametrize(
    ("make", "keypad"),
    [
        (v_trace, False),
        pytest.param(v_trace, True, marks=pytest.mark.slow),
        pytest.param(ppo, False, marks=pytest.mark.slow),
        pytest.param(ppo, True, marks=pytest.mark.slow),
    ],
    indirect=["keypad"],
)
def test_every_element_of_an_action_is_learnt(make, keypad):
    agent_factory.set_seed(1)
    agent = agent_factory.make_agent(make, keypad)
    policy = agent.collect_policy
    act, state = act_function(policy), policy.get_initial_state(16)
    assembler, train = UnrollAssembler(16, 8), tf.function(agent.train)
    now = keypad.reset()
    assembler.begin(state)
    for _ in range(30 * 8):
        step = act(*now, state)
        action, info = tf.nest.map_structure(lambda x: x.numpy(), (step.action, step.info))
        after, state = keypad.step(action), step.state
        unrolls = assembler.add(now, action, after, info, version=0)
        if unrolls is not None:
            train(**train_arguments(agent, to_batch(unrolls)))
            assembler.begin(state)
        now = after
    keypad.take_episodes()
    act, state, now = act_function(agent.policy), agent.policy.get_initial_state(16), keypad.reset()
    for _ in range(4):
        step = act(*now, state)
        now, state = keypad.step(step.action.numpy()), step.state
    np.testing.assert_array_equal(keypad.take_episodes().returns, np.full(16, 4.0))


@pytest.mark.parametrize("agent", [NStepDqnAgent, NStepQAgent, R2D2Agent])
def test_agents_that_learn_values_of_actions_refuse_them(agent, keypad):
    make = functools.partial(agent, network=None, optimizer=None)
    with pytest.raises(ConfigurationError, match=r"one discrete action .*VTraceAgent, NStepActorC"):
        agent_factory.make_agent(make, keypad)
