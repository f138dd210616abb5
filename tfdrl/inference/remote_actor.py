"""The actor of SEED RL: environments stepped by a learner's actions. Without TensorFlow."""

from __future__ import annotations

import contextlib
import itertools
import logging

from tfdrl.environments.guarded import GuardedEnvironment, RebuiltError
from tfdrl.experiment import Experiment
from tfdrl.rpc import environment_specs, security
from tfdrl.rpc.inference_client import ActorStoppedError, InferenceClient, LearnerRestartedError
from tfdrl.topology import Address, Context


def act_remotely(experiment: Experiment, context: Context, learner: Address) -> None:
    """Steps this actor's environments until the learner, or a signal, says stop.

    Raises:
      UnavailableError: the learner gave no answer within the architecture's timeout_secs.
      ConfigurationError: it refused this actor.
      GivenUpError: the environments fail.
    """
    config = experiment.architecture
    num_envs = config.environments_per_actor
    seeds = itertools.count(experiment.seed + 1009 * (context.task + 1), 1_000_003)
    environment = GuardedEnvironment(
        lambda: config.environment(num_envs=num_envs, training=True, seed=next(seeds)),
        rebuilds=config.environment_rebuilds,
        step_timeout_secs=config.environment_step_timeout_secs,
    )
    client = InferenceClient(
        learner,
        experiment=context.experiment,
        task=context.task,
        environments=num_envs,
        specs=environment_specs.environment_specs(environment.environment),
        timeout_secs=config.timeout_secs,
        stop=context.stop,
        security=security.of(context),
    )
    with environment, contextlib.closing(client):
        steps, frames = environment.reset(), 0
        while True:
            try:
                action = client.act(steps, frames, environment.take_episodes())
                steps = environment.step(action)
                made = environment.environment.steps_made(steps)
                frames += made * environment.environment.frames_per_step
            except LearnerRestartedError:
                logging.info("the learner has begun anew; so do the environments")
                steps, frames = environment.reset(), 0
            except RebuiltError:
                # No step says that the old episodes ended: they did not.
                client.begin_run()
                steps, frames = environment.reset(), 0
            except ActorStoppedError as stopped:
                logging.info("stopped: %s", stopped)
                return
