"""The actor of SEED RL: environments stepped by a learner's actions. Without TensorFlow."""

from __future__ import annotations

import contextlib
import itertools
import logging
from collections.abc import Callable

from tfdrl.environments.guarded import GuardedEnvironment, RebuiltError
from tfdrl.rpc import environment_specs, security
from tfdrl.rpc.inference_client import ActorStoppedError, InferenceClient, LearnerRestartedError
from tfdrl.topology import Address, Context


def act_remotely(
    learner: Address,
    context: Context,
    seed: int,
    *,
    environment: Callable,
    num_envs: int,
    rebuilds: int,
    step_timeout_secs: float,
    timeout_secs: float,
) -> None:
    """Steps this actor's environments until the learner, or a signal, says stop.

    Args:
      learner: its address.
      context: of the actor.
      seed: of the run; each actor's own follows from it and its task.
      environment: factory.
      num_envs: environments of this actor.
      rebuilds, step_timeout_secs: as of `GuardedEnvironment`.
      timeout_secs: how long the learner may give no answer.

    Raises:
      UnavailableError: the learner gave no answer in time.
      ConfigurationError: it refused this actor.
      GivenUpError: the environments fail.
    """
    seeds = itertools.count(seed + 1009 * (context.task + 1), 1_000_003)
    guarded = GuardedEnvironment(
        lambda: environment(num_envs=num_envs, training=True, seed=next(seeds)),
        rebuilds=rebuilds,
        step_timeout_secs=step_timeout_secs,
    )
    client = InferenceClient(
        learner,
        experiment=context.experiment,
        task=context.task,
        environments=num_envs,
        specs=environment_specs.environment_specs(guarded.environment),
        timeout_secs=timeout_secs,
        stop=context.stop,
        security=security.of(context),
    )
    with guarded, contextlib.closing(client):
        steps, frames = guarded.reset(), 0
        while True:
            try:
                action = client.act(steps, frames, guarded.take_episodes())
                steps = guarded.step(action)
                made = guarded.environment.steps_made(steps)
                frames += made * guarded.environment.frames_per_step
            except LearnerRestartedError:
                logging.info("the learner has begun anew; so do the environments")
                steps, frames = guarded.reset(), 0
            except RebuiltError:
                # No step says that the old episodes ended: they did not.
                client.begin_run()
                steps, frames = guarded.reset(), 0
            except ActorStoppedError as stopped:
                logging.info("stopped: %s", stopped)
                return
