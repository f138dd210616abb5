"""Which agents take which spaces with the networks of their gin files: for tests and docs."""

import contextlib
import functools
from typing import NamedTuple

import gin
import gymnasium
import numpy as np
from gymnasium import spaces

from tfdrl import configuration
from tfdrl.environments import gym_environment
from tfdrl.errors import ConfigurationError
from tfdrl.experiment import Experiment
from tfdrl.runtime import agent_factory
from tfdrl.runtime.compiled import act_function

NUM_ENVS = 2
_BOX = spaces.Box(-1.0, 1.0, (3,), np.float32)
OBSERVATIONS = {
    "Box of floats": _BOX,
    "Box of integers": spaces.Box(0, 9, (3,), np.int16),
    "Box of bools": spaces.Box(0, 1, (3,), bool),
    "an image of bytes": spaces.Box(0, 255, (40, 40, 3), np.uint8),
    "Discrete": spaces.Discrete(5),
    "MultiDiscrete": spaces.MultiDiscrete([3, 4]),
    "MultiBinary": spaces.MultiBinary(3),
    "Dict": spaces.Dict(a=_BOX, b=spaces.Discrete(3)),
    "Dict of one part": spaces.Dict(a=_BOX),
    "Tuple": spaces.Tuple((_BOX, spaces.Discrete(3))),
}
ACTIONS = {
    "Discrete": spaces.Discrete(3),
    "MultiDiscrete": spaces.MultiDiscrete([2, 3]),
    "Box with bounds": spaces.Box(-1.0, 1.0, (2,), np.float32),
    "Box without": spaces.Box(0.0, np.inf, (2,), np.float32),
    "MultiBinary": spaces.MultiBinary(3),
    "Dict": spaces.Dict(a=spaces.Discrete(2), b=_BOX),
    "Tuple": spaces.Tuple((spaces.Discrete(2), spaces.Discrete(3))),
}
_DDPG = """
include 'apex/td3_pendulum.gin'
agent_with_networks.agent = @DdpgAgent
DdpgAgent.actor_optimizer = @actor/adam()
DdpgAgent.critic_optimizer = @critic/adam()
DdpgAgent.gamma = %gamma
"""
_NO_ARRAY = "is not supported; use Box of floats, Discrete or MultiDiscrete"
_BY_ENVIRONMENT = dict.fromkeys(("MultiBinary", "Dict", "Tuple"), _NO_ARRAY)
_BY_VALUES = dict.fromkeys(
    ("MultiDiscrete", "Box with bounds", "Box without"), "a Q-network needs one discrete action"
)
_BY_SCALING = {
    "Discrete": "needs a continuous action",
    "MultiDiscrete": "needs a continuous action",
    "Box without": "needs an action with bounds",
}


class Agent(NamedTuple):
    """One that ships with a gin file, tfdrl's or TF-Agents' own.

    Attributes:
      gin_file: its name, or lines.
      action: one of `ACTIONS`, with which it is tried on `OBSERVATIONS`.
      refuses: words of the refusal by action, beside those that environments refuse.
    """

    gin_file: str
    action: str
    refuses: dict[str, str]

    @property
    def refusals(self) -> dict[str, str]:
        """Words of all of them."""
        return self.refuses | _BY_ENVIRONMENT


AGENTS = {
    "NStepDqnAgent": Agent("dqn/cartpole.gin", "Discrete", _BY_VALUES),
    "NStepQAgent": Agent("a3c/cartpole_q.gin", "Discrete", _BY_VALUES),
    "R2D2Agent": Agent("r2d2/catch_memory.gin", "Discrete", _BY_VALUES),
    "VTraceAgent": Agent("impala/cartpole.gin", "Discrete", {}),
    "NStepActorCriticAgent": Agent("a3c/cartpole.gin", "Discrete", {}),
    "PPOClipAgent": Agent("impala/ppo_cartpole.gin", "Discrete", {}),
    "NStepDpgAgent": Agent("apex_dpg/pendulum.gin", "Box with bounds", _BY_SCALING),
    "SacAgent": Agent("apex/sac_pendulum.gin", "Box with bounds", _BY_SCALING),
    "Td3Agent": Agent("apex/td3_pendulum.gin", "Box with bounds", _BY_SCALING),
    "DdpgAgent": Agent(_DDPG, "Box with bounds", _BY_SCALING),
}


class Sampled(gymnasium.Env):
    """Samples of a space, five times."""

    def __init__(self, observation_space, action_space):
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action):
        self.t += 1
        return self.observation_space.sample(), 1.0, self.t == 5, False, {}


gymnasium.register("tests/Sampled-v0", entry_point=Sampled)


@contextlib.contextmanager
def loaded(agent, directory):
    """The architecture of an agent's gin file."""
    lines = AGENTS[agent].gin_file
    if "\n" in lines:
        file = directory / "agent.gin"
        file.write_text(lines)
        lines = str(file)
    configuration.load([lines], [], tensorflow=True)
    try:
        yield Experiment.from_gin().architecture
    finally:
        gin.clear_config()


def refusal(architecture, observation_space, action_space) -> str:
    """Builds the agent and acts three times; the sentence that refuses it, or ""."""
    make = functools.partial(gym_environment, NUM_ENVS, True, 1, id="tests/Sampled-v0")
    kwargs = {"observation_space": observation_space, "action_space": action_space}
    try:
        with make(kwargs=kwargs, vectorization="sync") as environment:
            agent = agent_factory.make_agent(architecture.agent, environment)
            policy, now = agent.collect_policy, environment.reset()
            act, state = act_function(policy), policy.get_initial_state(NUM_ENVS)
            for _ in range(3):
                step = act(*now, state)
                now, state = environment.step(step.action.numpy()), step.state
    except ConfigurationError as error:
        return str(error)
    return ""
