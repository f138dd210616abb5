"""A role that has joined a run whose parameters are on servers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tfdrl.acting.exploration import collect_policy
from tfdrl.acting.run_connection import RunConnection
from tfdrl.environments.batched import BatchedEnvironment
from tfdrl.parameter_server.client import GlobalParameters
from tfdrl.parameter_server.gradients import LossGradient
from tfdrl.parameter_server.settings import ParameterServerSettings
from tfdrl.runtime import agent_factory
from tfdrl.topology import Address, Addresses, Context


class JoinedWorker(NamedTuple):
    """N environments, and a policy for them that has the servers' parameters."""

    environment: BatchedEnvironment
    agent: Any
    policy: Any
    gradient: LossGradient
    parameters: GlobalParameters
    connection: RunConnection


@contextlib.contextmanager
def joined(
    parameter_server: Addresses,
    coordinator: Address,
    context: Context,
    seed: int,
    *,
    environment: Callable,
    agent: Callable,
    gradient: Callable,
    num_envs: int,
    epsilon: float,
    settings: ParameterServerSettings,
    timeout_secs: float,
    barrier: int = 0,
) -> Iterator[JoinedWorker]:
    """Builds what a worker or an actor acts with and waits for the first parameters.

    Args:
      parameter_server, coordinator, context, settings, timeout_secs, barrier: as of `connected`.
      seed: of this process's environments and actions.
      environment, agent: factories.
      gradient: `gradient(agent, policy, environment) -> LossGradient`.
      num_envs: N.
      epsilon: to begin with, of an agent that acts epsilon-greedily.

    Raises UnavailableError or ConfigurationError, as `connected`.
    """
    batched = environment(num_envs=num_envs, training=True, seed=seed)
    made = agent_factory.make_agent(agent, batched)
    policy = collect_policy(made, [epsilon] * num_envs, seed)
    loss_gradient = gradient(made, policy, batched)
    specs = agent_factory.specs_text(batched)
    with connected(
        parameter_server,
        coordinator,
        context,
        loss_gradient,
        specs,
        settings,
        timeout_secs,
        barrier,
    ) as (parameters, connection):
        yield JoinedWorker(batched, made, policy, loss_gradient, parameters, connection)
    batched.close()


@contextlib.contextmanager
def connected(
    parameter_server: Addresses,
    coordinator: Address,
    context: Context,
    gradient: LossGradient,
    specs: str,
    settings: ParameterServerSettings,
    timeout_secs: float,
    barrier: int = 0,
) -> Iterator[tuple[GlobalParameters, RunConnection]]:
    """Joins the servers and the coordinator; the gradient's variables then have their values.

    At the end it reports what it has not yet: unless something has failed, which ends the process.

    Args:
      parameter_server, coordinator: their addresses.
      context: of this role.
      gradient: whose variables are on the servers; it is split as they are.
      specs: text of the environment's specs.
      settings: of the servers.
      timeout_secs: how long one may be away.
      barrier: as of `GlobalParameters`.

    Raises UnavailableError or ConfigurationError, as `GlobalParameters` and `RunConnection`.
    """
    parameters = GlobalParameters(
        *(parameter_server, gradient.variables, settings, context, timeout_secs, barrier),
        moments=gradient.moments,
    )
    gradient.split(parameters.indices)
    connection = RunConnection(coordinator, context, specs, timeout_secs)
    parameters.connect()  # first: its refusal shows both networks
    connection.start()
    yield parameters, connection
    parameters.close()
    connection.close()
