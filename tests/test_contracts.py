"""The contracts' page: its examples run, and are what it says that they are."""

import inspect
import pathlib
import re
import types

import numpy as np
import pytest
import tensorflow as tf
from tf_agents.specs import BoundedTensorSpec
from tf_agents.trajectories import time_step as ts

from tfdrl import contracts
from tfdrl.acting.exploration import collect_policy
from tfdrl.agents.n_step_dqn import NStepDqnAgent
from tfdrl.agents.optimizers import adam
from tfdrl.agents.r2d2 import R2D2Agent
from tfdrl.errors import ConfigurationError
from tfdrl.experience.unroll_batches import UnrollBatch, train_arguments
from tfdrl.experiment import Experiment
from tfdrl.networks.q_networks import MlpQNetwork
from tfdrl.types import FIRST, LAST

_PAGE = pathlib.Path(__file__).resolve().parents[1] / "docs" / "contracts.md"


@pytest.fixture(scope="module")
def page():
    """What the examples of the page define."""
    found = {"__name__": "contracts_page"}
    for block in re.findall(r"```python\n(.*?)```", _PAGE.read_text(), re.DOTALL):
        exec(block, found)
    return found


def make_agent(factory, **settings):
    observation = ts.time_step_spec(tf.TensorSpec([3], tf.float32))
    action = BoundedTensorSpec([], tf.int32, 0, 1)
    return factory(observation, action, network=MlpQNetwork, optimizer=adam, **settings)


def test_every_protocol_is_on_the_page():
    text = _PAGE.read_text()
    for name, found in vars(contracts).items():
        if inspect.isclass(found) and found.__module__ == contracts.__name__:
            named = f"`{name}`" in text or name == "Architecture"
            assert named, name
            assert found.__doc__


def test_exploring_agent(page):
    agent = make_agent(page["BoldAgent"])
    assert isinstance(agent, contracts.ExploringAgent)
    policy = collect_policy(agent, np.array([0.1, 0.9]), seed=1)
    assert isinstance(policy, contracts.AnnealedPolicy)
    step = ts.restart(tf.zeros([2, 3]), batch_size=2)
    info = policy.action(step, ()).info
    assert info.q_taken.shape == info.max_q.shape == [2]


def test_an_agent_without_one_explores_by_its_collect_policy():
    class Plain:
        collect_policy = "its own"

    assert collect_policy(Plain(), np.zeros(1), seed=1) == "its own"


def test_td_errors(page):
    extra = page["Extra"](tf.zeros([4]), tf.constant(1.0))
    assert isinstance(extra, contracts.TdErrors)
    assert not isinstance((), contracts.TdErrors)


def test_sequence_agent(page):
    sequences = page["Sequences"]()
    assert isinstance(sequences, contracts.SequenceAgent)
    assert contracts.burn_in_steps(sequences) == 4
    priority = sequences.initial_priorities(tf.constant([[1.0, -3.0]]), None, None)
    assert priority.numpy().tolist() == [3.0]
    contracts.require_sequence_agent(sequences, "r2d2")
    assert issubclass(R2D2Agent, contracts.ExploringAgent)


@pytest.mark.parametrize(
    ("present", "missing"),
    [
        ({}, "no initial_priorities and no burn_in_steps"),
        ({"burn_in_steps": 1}, r"no initial_priorities\)"),
        ({"initial_priorities": print}, r"it has no burn_in_steps\)"),
    ],
)
def test_what_a_sequence_agent_lacks_is_named(present, missing):
    agent = type("Theirs", (), present)()
    with pytest.raises(ConfigurationError, match=f"seed.agent: Theirs gives no .*{missing}"):
        contracts.require_sequence_agent(agent, "seed")
    assert contracts.burn_in_steps(agent) == present.get("burn_in_steps", 0)


@pytest.mark.parametrize("state", [(), [tf.TensorSpec([3])]])
def test_steps_after_the_trained_ones_are_for_agents_without_a_state(state):
    policy = types.SimpleNamespace(policy_state_spec=state)
    assert contracts.lookahead_steps(types.SimpleNamespace(collect_policy=policy)) == 0
    agent = types.SimpleNamespace(collect_policy=policy, lookahead_steps=1)
    if state:
        with pytest.raises(ConfigurationError, match="lookahead_steps = 1 with a recurrent policy"):
            contracts.lookahead_steps(agent)
    else:
        assert contracts.lookahead_steps(agent) == 1


@pytest.mark.parametrize("taken", [(), ("policy_state",), ("policy_state", "last_reward")])
def test_an_agent_on_unrolls_is_given_what_its_loss_names(taken):
    def train(experience, weights=None):
        """One parameter for each of `taken` is added below."""

    parameters = [
        *inspect.signature(train).parameters.values(),
        *(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY) for name in taken),
    ]
    train.__signature__ = inspect.Signature(parameters)
    agent = type("Theirs", (), {"_train": staticmethod(train)})()
    batch = UnrollBatch("experience", "state", "reward", None, None)
    given = {"policy_state": "state", "last_reward": "reward"}
    assert train_arguments(agent, batch) == {
        "experience": "experience",
        **{name: given[name] for name in taken},
    }


def test_environment(page):
    with page["Coins"](num_envs=2, training=True, seed=1) as environment:
        assert environment.reset().step_type.tolist() == [FIRST, FIRST]
        steps = environment.step(np.array([1, 0], np.int32))
        assert steps.step_type.tolist() == [LAST, LAST]
        assert steps.reward.tolist() == [1.0, 0.0] and steps.discount.tolist() == [0.0, 0.0]
        assert environment.step(np.zeros(2, np.int32)).step_type.tolist() == [FIRST, FIRST]
        assert environment.take_episodes().returns.tolist() == [1.0, 0.0]


def test_architecture(page):
    architecture = page["OneLearner"](environment=page["Coins"], agent=NStepDqnAgent)
    assert isinstance(architecture, contracts.Architecture)
    program = Experiment(architecture).architecture.program()
    assert [role.name for role in program.roles] == ["learner", "actor"]
    assert program.role("actor").replicas == 2
