"""Every agent takes or refuses each space as docs/environments.md says it does."""

import agent_spaces
import pytest
from agent_spaces import ACTIONS, AGENTS, OBSERVATIONS

VECTOR = OBSERVATIONS["Box of floats"]


@pytest.mark.parametrize("name", AGENTS)
def test_actions_that_are_refused_before_training(name, tmp_path):
    with agent_spaces.loaded(name, tmp_path) as architecture:
        for action, words in AGENTS[name].refusals.items():
            assert words in agent_spaces.refusal(architecture, VECTOR, ACTIONS[action]), action


@pytest.mark.slow
@pytest.mark.parametrize("name", AGENTS)
def test_actions_that_are_taken(name, tmp_path):
    with agent_spaces.loaded(name, tmp_path) as architecture:
        for action in ACTIONS.keys() - AGENTS[name].refusals.keys():
            assert not agent_spaces.refusal(architecture, VECTOR, ACTIONS[action])


@pytest.mark.slow
@pytest.mark.parametrize("name", AGENTS)
def test_observations_of_every_kind_are_taken(name, tmp_path):
    action = ACTIONS[AGENTS[name].action]
    with agent_spaces.loaded(name, tmp_path) as architecture:
        for space in OBSERVATIONS.values():
            assert not agent_spaces.refusal(architecture, space, action), space
