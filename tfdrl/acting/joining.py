"""An actor that has joined a run: environments, policy, and connection to the learner."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from tfdrl.acting.exploration import collect_policy
from tfdrl.acting.learner_connection import LearnerConnection
from tfdrl.environments.batched import BatchedEnvironment
from tfdrl.runtime import agent_factory
from tfdrl.topology import Address, Context


class JoinedActor(NamedTuple):
    """N environments, and a policy for them that has the learner's newest parameters."""

    environment: BatchedEnvironment
    agent: Any
    policy: Any
    connection: LearnerConnection


@contextlib.contextmanager
def joined(
    learner: Address,
    context: Context,
    seed: int,
    environment: Callable,
    agent: Callable,
    num_envs: int,
    exploration: Callable,
    timeout_secs: float,
    parameters_from: Address | None = None,
) -> Iterator[JoinedActor]:
    """Builds what an actor acts with and waits for the first parameters.

    At the end it reports what it has not yet, and closes the environments: unless something has
    failed, which ends the process, and must not wait for what may be broken.

    Args:
      learner: that counts for the run.
      context: of the actor.
      seed: of the run; each actor's own follows from it and its task.
      environment, agent: factories.
      num_envs: N.
      exploration: `exploration(count)` -> of each environment of all actors.
      timeout_secs: how long the learner may be away.
      parameters_from: as `LearnerConnection` takes it.

    Raises UnavailableError or ConfigurationError, as `LearnerConnection.start`.
    """
    seed += 1009 * (context.task + 1)
    batched = environment(num_envs=num_envs, training=True, seed=seed)
    made = agent_factory.make_agent(agent, batched)
    own = slice(context.task * num_envs, (context.task + 1) * num_envs)
    policy = collect_policy(made, exploration(context.replicas * num_envs)[own], seed)
    with connected(learner, context, batched, made, timeout_secs, parameters_from) as connection:
        yield JoinedActor(batched, made, policy, connection)


@contextlib.contextmanager
def connected(
    learner: Address,
    context: Context,
    environment: BatchedEnvironment,
    agent: Any,
    timeout_secs: float,
    parameters_from: Address | None = None,
) -> Iterator[LearnerConnection]:
    """A connection by which the agent has the learner's newest parameters.

    At the end it reports what it has not yet, and closes the environments, as `joined` says.
    """
    connection = LearnerConnection(
        learner,
        context,
        agent.collect_policy.variables(),
        agent_factory.specs_text(environment),
        timeout_secs,
        parameters_from,
    )
    connection.start()
    yield connection
    connection.close()
    environment.close()
