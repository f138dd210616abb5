"""Agents whose constructors want networks that are built already, such as TF-Agents' own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import gin

from tfdrl.agents.n_step_dpg import check_action_spec

#: Of TF-Agents: these scale what their networks say to the bounds of the action.
_SCALING = ("DdpgAgent", "SacAgent", "Td3Agent")


@gin.configurable
def agent_with_networks(
    time_step_spec,
    action_spec,
    train_step_counter=None,
    agent: Callable = gin.REQUIRED,
    networks: Mapping[str, Callable] = gin.REQUIRED,
):
    """Builds networks for the environment's specs and gives them to an agent.

    Args:
      time_step_spec, action_spec: of the environment, without batch dimension.
      train_step_counter: counts learner steps.
      agent: a TFAgent class, such as TF-Agents' DqnAgent; gin binds its other arguments.
      networks: argument of the agent -> `network(observation_spec, action_spec)`.

    Raises:
      ConfigurationError: an agent that scales actions to their bounds, and actions without.
    """
    names = {base.__name__ for base in getattr(agent, "__mro__", ())}
    for name in names.intersection(_SCALING):
        check_action_spec(action_spec, name)
    built = {
        name: network(time_step_spec.observation, action_spec) for name, network in networks.items()
    }
    return agent(time_step_spec, action_spec, train_step_counter=train_step_counter, **built)
