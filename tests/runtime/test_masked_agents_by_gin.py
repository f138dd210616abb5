"""One line of gin masks every agent: tfdrl's, and TF-Agents' own; who cannot obey is refused."""

import functools

import gin
import numpy as np
import pytest
import tensorflow as tf
from tf_agents.trajectories import time_step as ts

from tfdrl import configuration
from tfdrl.agents.n_step_dqn import NStepDqnAgent
from tfdrl.agents.v_trace import VTraceAgent
from tfdrl.environments import gym_environment
from tfdrl.errors import ConfigurationError
from tfdrl.evaluation.episodes import play, summarise
from tfdrl.evaluation.policy_export import PolicyExport
from tfdrl.experiment import Experiment
from tfdrl.networks.actor_critic_networks import MlpActorCriticNetwork
from tfdrl.networks.q_networks import KerasQNetwork, MlpQNetwork
from tfdrl.runtime import agent_factory
from tfdrl.runtime.compiled import act_function

DOORS = """
gym_environment.id = "tfdrl/Doors-v0"
gym_environment.action_mask = "action_mask"
"""
DQN_AGENT = """
dqn.agent = @agent_with_networks
agent_with_networks.agent = @DqnAgent
agent_with_networks.networks = {'q_network': @QNetwork, 'target_q_network': @QNetwork}
DqnAgent.optimizer = @adam()
DqnAgent.gamma = %gamma
QNetwork.fc_layer_params = (7,)
"""
CASES = {
    "dqn/cartpole": "",
    "r2d2/catch_memory": "",
    "impala/catch_memory": "",
    "impala/ppo_cartpole": "",
    "a3c/cartpole": "",
    "a3c/cartpole_q": "",
    "dqn/cartpole with TF-Agents' DqnAgent": DQN_AGENT,
    "dqn/cartpole normalised": "normalization.observations = True",
}


@pytest.fixture(autouse=True)
def clear():
    yield
    gin.clear_config()


def load(name, lines, tmp_path):
    file = tmp_path / "masked.gin"
    file.write_text(f"include '{name.split()[0]}.gin'\n{DOORS}{lines}")
    configuration.load([str(file)], [], tensorflow=True)
    return Experiment.from_gin().architecture


def agent_of(architecture, **settings):
    with architecture.environment(num_envs=1, training=True, seed=0, **settings) as environment:
        return agent_factory.make_agent(architecture.agent, environment)


@pytest.mark.parametrize("case", CASES)
def test_whole_games_without_a_forbidden_action(case, tmp_path):
    """Doors raises at the first one. What was exported plays by the rules, too."""
    architecture = load(case, CASES[case], tmp_path)
    agent = agent_of(architecture)
    exported = None
    if case == "impala/catch_memory":
        export = PolicyExport(agent.policy, tmp_path / "policy")
        assert export.offer(summarise(np.ones(2), version=0, frames=0, start_secs=0.0))
        exported = tf.saved_model.load(str(tmp_path / "policy"))
    policies = [agent.policy, agent.collect_policy, *([exported] if exported else [])]
    if hasattr(agent, "actor_policy"):
        policies.append(agent.actor_policy(np.full(40, 0.5), seed=1))
    for policy in policies:
        with architecture.environment(num_envs=40, training=True, seed=1) as environment:
            returns = play(environment, act_function(policy), policy.get_initial_state, 80)
            assert len(returns) == 80


def test_a_splitter_of_ones_own_goes_before(tmp_path):
    """Here one that shows the network the mask."""

    @gin.configurable("test_splitter")
    def splitter(observation):
        return observation, observation["action_mask"]

    lines = "NStepDqnAgent.observation_and_action_constraint_splitter = @test_splitter\n"
    file = tmp_path / "masked.gin"
    file.write_text(f"include 'dqn/cartpole.gin'\n{DOORS}")
    configuration.load([str(file)], [], tensorflow=True)
    with gin.unlock_config():
        gin.parse_config(lines)
    agent = agent_of(Experiment.from_gin().architecture)
    assert agent._q_network.variables[0].shape == [6 + 4, 128]


def test_networks_of_tf_agents_agents_are_built_for_what_a_bound_splitter_leaves(tmp_path):
    @gin.configurable("test_splitter_of_rooms")
    def splitter(observation):
        return observation["observation"], observation["action_mask"]

    file = tmp_path / "masked.gin"
    file.write_text(f"include 'dqn/cartpole.gin'\n{DQN_AGENT}")
    configuration.load([str(file)], [], tensorflow=True)
    with gin.unlock_config():
        gin.parse_config(
            "gym_environment.id = 'tfdrl/Doors-v0'\n"
            "DqnAgent.observation_and_action_constraint_splitter = @test_splitter_of_rooms\n"
        )
    agent = agent_of(Experiment.from_gin().architecture)
    assert agent._q_network.input_tensor_spec.shape == [6]
    observation = {
        "observation": tf.zeros([900, 6]),
        "action_mask": tf.constant([[0, 1, 0, 1]] * 900),
    }
    taken = agent.collect_policy.action(ts.restart(observation, 900)).action
    assert set(taken.numpy()) == {1, 3}


@pytest.mark.parametrize(
    ("name", "lines", "said"),
    [
        # The environment says so, whoever the agent is.
        *(
            (
                name,
                "gym_environment.id = 'Pendulum-v1'",
                "Pendulum-v1: .* Discrete or MultiDiscrete action",
            )
            for name in ("apex_dpg/pendulum", "apex/sac_pendulum", "apex/td3_pendulum")
        ),
        (
            "apex/sac_pendulum",
            "gym_environment.wrappers = ()",
            "SacAgent takes no action masks|discrete|bounded",
        ),
        (
            "impala/ppo_cartpole",
            "PPOClipAgent.normalize_observations = True",
            "normalize_observations = True would also normalise the action mask",
        ),
    ],
)
def test_who_cannot_obey_a_mask_is_refused(name, lines, said, tmp_path):
    with pytest.raises(ConfigurationError, match=said):
        agent_of(load(name, lines, tmp_path))


def test_a_factory_that_takes_no_splitter_is_refused():
    with gym_environment(1, True, 0, id="tfdrl/Doors-v0", action_mask="action_mask") as environment:
        with pytest.raises(ConfigurationError, match="agent simple takes no action masks"):
            agent_factory.make_agent(simple, environment)


def simple(time_step_spec, action_spec, train_step_counter):
    raise AssertionError


def keras_model(observation_spec, num_actions):
    """Sees the mask, and does not obey it."""
    inputs = {k: tf.keras.Input(s.shape, dtype=s.dtype) for k, s in observation_spec.items()}
    seen = [tf.cast(x, tf.float32) for x in inputs.values()]
    return tf.keras.Model(inputs, tf.keras.layers.Dense(num_actions)(tf.concat(seen, axis=1)))


NETWORKS = {
    "built in": (NStepDqnAgent, MlpQNetwork),
    "Keras": (NStepDqnAgent, functools.partial(KerasQNetwork, model=keras_model)),
    "policy": (VTraceAgent, MlpActorCriticNetwork),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_mask_that_no_setting_names_is_obeyed_and_seen(name, caplog):
    agent, network = NETWORKS[name]
    factory = functools.partial(agent, network=network, optimizer=tf.keras.optimizers.SGD())
    with gym_environment(20, True, 0, id="tfdrl/Doors-v0") as environment:
        made = agent_factory.make_agent(factory, environment)
        policy = made.actor_policy(np.full(20, 0.5), seed=1)
        assert len(play(environment, act_function(policy), policy.get_initial_state, 40)) == 40
    assert any(v.shape.rank == 2 and v.shape[0] == 6 + 4 for v in policy.variables())
    assert f"{agent.__name__} takes no action where it is 0, and networks see it" in caplog.text


def epsilon_greedy(time_step_spec, action_spec, train_step_counter):
    """A factory that knows no masks."""
    return NStepDqnAgent(
        *(time_step_spec, action_spec),
        network=MlpQNetwork,
        optimizer=tf.keras.optimizers.SGD(),
        train_step_counter=train_step_counter,
    )


def actor_critic(time_step_spec, action_spec, train_step_counter):
    return VTraceAgent(
        *(time_step_spec, action_spec),
        network=MlpActorCriticNetwork,
        optimizer=tf.keras.optimizers.SGD(),
        train_step_counter=train_step_counter,
    )


def test_a_mask_that_no_setting_names_and_no_agent_takes(caplog):
    """Random actions would be of all; a policy may come from a network that obeys it itself."""
    with gym_environment(1, True, 0, id="tfdrl/Doors-v0") as environment:
        with pytest.raises(ConfigurationError, match="NStepDqnAgent takes no masks, so it may"):
            agent_factory.make_agent(epsilon_greedy, environment)
        agent_factory.make_agent(actor_critic, environment)
        assert "VTraceAgent takes no masks, so it may take any action" in caplog.text
