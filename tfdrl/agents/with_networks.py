"""Agents whose constructors want networks that are built already, such as TF-Agents' own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import gin

from tfdrl.agents.n_step_dpg import check_action_spec
from tfdrl.networks.actor_critic_checks import advice_on_arrays

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
      ConfigurationError: an agent that scales actions to their bounds, and actions without; an
        agent or network that does not take an array of integers.
    """
    names = {base.__name__ for base in getattr(agent, "__mro__", ())}
    for name in names.intersection(_SCALING):
        check_action_spec(action_spec, name)
    specs = (time_step_spec.observation, action_spec)
    with advice_on_arrays(action_spec):
        built = {name: network(*specs) for name, network in networks.items()}
        return agent(time_step_spec, action_spec, train_step_counter=train_step_counter, **built)
