"""Agents whose constructors want networks that are built already, such as TF-Agents' own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import gin

from tfdrl.agents import masked_network
from tfdrl.agents.n_step_dpg import check_action_spec
from tfdrl.errors import ConfigurationError
from tfdrl.networks.actor_critic_checks import advice_on_arrays

#: Of TF-Agents: these scale what their networks say to the bounds of the action.
_SCALING = ("DdpgAgent", "SacAgent", "Td3Agent")
#: Of TF-Agents: takes no splitter, but acts and learns by its network's distribution alone.
_BY_ITS_NETWORKS = "PPOAgent"


@gin.configurable
def agent_with_networks(
    time_step_spec,
    action_spec,
    train_step_counter=None,
    agent: Callable = gin.REQUIRED,
    networks: Mapping[str, Callable] = gin.REQUIRED,
    observation_and_action_constraint_splitter: Callable | None = None,
):
    """Builds networks for the environment's specs and gives them to an agent.

    Args:
      time_step_spec, action_spec: of the environment, without batch dimension.
      train_step_counter: counts learner steps.
      agent: a TFAgent class, such as TF-Agents' DqnAgent; gin binds its other arguments.
      networks: argument of the agent -> `network(observation_spec, action_spec)`.
      observation_and_action_constraint_splitter: takes the mask of allowed actions out of an
        observation: the agent gets it, if gin binds no other to it, and its networks are built
        for the rest. PPO's, which take none, get networks that obey it.

    Raises:
      ConfigurationError: an agent that scales actions to their bounds, and actions without; an
        agent or network that does not take an array of integers; one that takes no masks, and a
        splitter.
    """
    names = {base.__name__ for base in getattr(agent, "__mro__", ())}
    for name in names.intersection(_SCALING):
        check_action_spec(action_spec, name)
    observation_spec, more = time_step_spec.observation, {}
    splitter = masked_network.bound_splitter(agent) or observation_and_action_constraint_splitter
    if splitter is not None and _BY_ITS_NETWORKS in names:
        networks = _masked(networks, splitter, agent.__name__)
    elif splitter is not None:
        more = masked_network.splitter_argument(agent, splitter)
        observation_spec = masked_network.rest_of(observation_spec, splitter, agent.__name__)
    with advice_on_arrays(action_spec):
        built = {name: network(observation_spec, action_spec) for name, network in networks.items()}
        made = agent(
            time_step_spec, action_spec, train_step_counter=train_step_counter, **built, **more
        )
    if splitter is not None and getattr(made, "_observation_normalizer", None) is not None:
        raise ConfigurationError(
            f"{agent.__name__}.normalize_observations = True would also normalise the action mask; "
            "set it to False"
        )
    return made


def _masked(networks, splitter, agent: str) -> dict[str, Callable]:
    """Of PPO, whose policy is what its actor says."""
    return {
        name: masked_network.masked(network, splitter, agent, obeys=name != "value_net")
        for name, network in networks.items()
    }
