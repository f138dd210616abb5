"""How every role builds the same agent for an environment, and what cannot be built."""

import functools

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from tf_agents.agents.dqn import dqn_agent
from tf_agents.networks import q_network

from tfdrl.agents import optimizers
from tfdrl.agents.n_step_dqn import NStepDqnAgent
from tfdrl.environments import gym_environment
from tfdrl.environments.vectorized import VectorizedEnvironment
from tfdrl.errors import ConfigurationError
from tfdrl.networks.q_networks import MlpQNetwork, NatureQNetwork
from tfdrl.runtime import agent_factory as runtime_agent_factory


class Room(gymnasium.Env):
    """Observations and actions of any kind; nothing happens."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action):
        return self.observation_space.sample(), 0.0, False, False, {}


VECTOR = spaces.Box(-1, 1, (3,), np.float32)


def room(observation_space=VECTOR, action_space=None):
    make = functools.partial(Room, observation_space, action_space or spaces.Discrete(2))
    return VectorizedEnvironment(gymnasium.vector.SyncVectorEnv([make]), seed=0)


def agent_factory(network=MlpQNetwork, **kwargs):
    return functools.partial(NStepDqnAgent, network=network, optimizer=optimizers.sgd(), **kwargs)


def chain():
    return gym_environment(1, True, 0, id="tfdrl/Chain-v0")


def test_an_agent_without_its_settings_is_refused():
    words = (
        r"the agent NStepDqnAgent cannot be built: Required bindings .* \['network', 'optimizer'\]"
    )
    with pytest.raises(ConfigurationError, match=words):
        runtime_agent_factory.make_agent(NStepDqnAgent, chain())


def test_two_roles_build_the_same_agent():
    weights = []
    for seed in (1, 1, 2):
        runtime_agent_factory.set_seed(seed)
        agent = runtime_agent_factory.make_agent(agent_factory(), chain())
        weights.append([v.numpy() for v in agent.collect_policy.variables()])
    assert all((a == b).all() for a, b in zip(weights[0], weights[1]))
    assert any((a != b).any() for a, b in zip(weights[0], weights[2]))
    assert agent.train_step_counter.numpy() == 0 and agent.train_step_counter.dtype == "int64"


def test_dict_observations_and_actions_that_start_elsewhere():
    space = spaces.Dict({"a": VECTOR, "b": spaces.Box(0, 255, (4, 4), np.uint8)})
    with room(space, spaces.Discrete(3, start=5)) as environment:
        agent = runtime_agent_factory.make_agent(agent_factory(), environment)
        steps = environment.reset()
        action = agent.actor_policy(1.0, seed=0).action(
            agent.time_step_spec._replace(**steps._asdict())
        )
        assert 0 <= int(action.action[0]) < 3
        environment.step(action.action.numpy())


def test_tf_agents_own_agent():
    def factory(time_step_spec, action_spec, train_step_counter):
        network = q_network.QNetwork(time_step_spec.observation, action_spec)
        return dqn_agent.DqnAgent(
            *(time_step_spec, action_spec, network, optimizers.adam()),
            train_step_counter=train_step_counter,
        )

    assert isinstance(runtime_agent_factory.make_agent(factory, chain()), dqn_agent.DqnAgent)


@pytest.mark.parametrize(
    ("factory", "action_space", "message"),
    [
        (agent_factory(), VECTOR, "one discrete action"),
        (agent_factory(), spaces.MultiDiscrete([2, 2]), "one discrete action"),
        (agent_factory(NatureQNetwork), None, "for vectors use MlpQNetwork"),
        (agent_factory(loss="mse"), None, "unknown; use one of"),
        (lambda *_, **__: "agent", None, "made a str, not a TFAgent"),
        (lambda a, b: None, None, "cannot be built.*train_step_counter"),
    ],
)
def test_what_cannot_be_built(factory, action_space, message):
    with room(action_space=action_space) as environment:
        with pytest.raises(ConfigurationError, match=message):
            runtime_agent_factory.make_agent(factory, environment)


def test_specs_text_tells_environments_apart():
    texts = []
    for space in (spaces.Discrete(2), spaces.Discrete(2, start=3), spaces.Discrete(4)):
        with room(action_space=space) as environment:
            texts.append(runtime_agent_factory.specs_text(environment))
    # Discrete actions start at 0 here whatever the environment's own numbering.
    assert texts[0] == texts[1] != texts[2]
    assert "float32[3]" in texts[0] and "int32[] of 0..1" in texts[0]
    with room(action_space=spaces.MultiDiscrete([2, 5])) as environment:
        assert "int32[2] of [0 0]..[1 4]" in runtime_agent_factory.specs_text(environment)
    with chain() as environment:
        assert "float32[5]" in runtime_agent_factory.specs_text(environment)
