"""What plays in evaluations: the greedy policy, or the acting one, exploring as it is told."""

import numpy as np
import pytest
import tensorflow as tf

from tfdrl.agents.n_step_dqn import NStepDqnAgent
from tfdrl.agents.r2d2 import R2D2Agent
from tfdrl.agents.v_trace import VTraceAgent
from tfdrl.environments import gym_environment
from tfdrl.evaluation.policies import acting_policy, evaluation_policy
from tfdrl.networks.actor_critic_networks import MlpActorCriticNetwork
from tfdrl.networks.q_networks import MlpQNetwork
from tfdrl.networks.recurrent_q_networks import MlpRecurrentQNetwork
from tfdrl.runtime import agent_factory
from tfdrl.runtime.compiled import act_function

_N = 200
_AGENTS = {
    "dqn": (NStepDqnAgent, MlpQNetwork),
    "r2d2": (R2D2Agent, MlpRecurrentQNetwork),
    "vtrace": (VTraceAgent, MlpActorCriticNetwork),
}


@pytest.fixture(params=_AGENTS)
def kind(request):
    return request.param


@pytest.fixture
def actions(kind):
    """`actions(factory)` -> what the evaluation's policy answers to one step, <int>[N]."""
    with gym_environment(_N, False, 1, id="tfdrl/Catch-v0") as environment:
        steps = environment.reset()

        def make(*specs, **more):
            agent, network = _AGENTS[kind]
            optimizer = tf.keras.optimizers.SGD(0.1)
            return agent(*specs, network=network, optimizer=optimizer, **more)

        agent_factory.set_seed(1)
        agent = agent_factory.make_agent(make, environment)
    steps = steps._replace(observation=np.repeat(steps.observation[:1], _N, axis=0))

    def play(factory=None):
        policy = evaluation_policy(factory, agent, _N, seed=1)
        return act_function(policy)(*steps, policy.get_initial_state(_N)).action.numpy()

    return play


def test_by_default_it_is_the_greedy_policy(actions):
    assert len(set(actions())) == 1


def test_q_learners_act_at_random_with_the_probability_that_is_set(kind, actions):
    if kind == "vtrace":
        pytest.skip("samples, whatever the exploration is")
    greedy = actions()
    np.testing.assert_array_equal(actions(acting_policy), greedy)
    different = np.mean(actions(lambda *more: acting_policy(*more, exploration=0.6)) != greedy)
    assert 0.25 < different < 0.55  # 0.4: a third of the random ones are the greedy one


def test_actor_critics_sample(kind, actions):
    if kind != "vtrace":
        pytest.skip("acts by its values")
    assert len(set(actions(acting_policy))) > 1
