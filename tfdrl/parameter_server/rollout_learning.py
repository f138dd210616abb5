"""What a worker of A3C learns from its rollouts with, and what changes over global steps."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfdrl.acting.exploration import collect_policy
from tfdrl.contracts import AnnealedPolicy
from tfdrl.environments.batched import BatchedEnvironment
from tfdrl.experience.unroll_batches import to_batch, train_arguments
from tfdrl.experiment import Experiment
from tfdrl.ops import exploration
from tfdrl.parameter_server.client import GlobalParameters
from tfdrl.parameter_server.coordinator import Learner
from tfdrl.parameter_server.gradients import LossGradient
from tfdrl.replay import unroll_tables
from tfdrl.runtime import agent_factory
from tfdrl.topology import Context
from tfdrl.types import Unrolls


def rollout_gradient(agent, policy, environment: BatchedEnvironment, t_max: int) -> LossGradient:
    """The gradient of an agent's loss on rollouts, `Unrolls` of [N, T, ...].

    Args:
      agent: that trains on unrolls.
      policy: by which it acts here.
      environment: N environments.
      t_max: T.
    """
    signature = unroll_tables.unroll_signature(environment, policy, t_max)
    example = tf.nest.map_structure(
        lambda spec: np.zeros((environment.num_envs, *spec.shape), spec.dtype.as_numpy_dtype),
        signature,
    )

    def arguments(unrolls: Unrolls):
        return train_arguments(agent, to_batch(unrolls))

    return LossGradient(agent, arguments, [example])


def make_learner(experiment: Experiment) -> Learner:
    """The agent with the run's initial values, what its loss trains, and the specs."""
    config = experiment.architecture
    agent_factory.set_seed(experiment.seed)
    with config.environment(num_envs=1, training=True, seed=experiment.seed) as environment:
        agent = agent_factory.make_agent(config.agent, environment)
        policy = collect_policy(agent, [0.0], 0)
        gradient = rollout_gradient(agent, policy, environment, config.t_max)
        specs = agent_factory.specs_text(environment)
        return Learner(agent, gradient.variables, specs, environment.return_range)


class Schedule:
    """A worker's epsilon and target network, which follow the global steps.

    Args:
      config: settings of A3C.
      agent: its `initialize()` copies the network to its target, if it has one.
      policy: its `set_epsilon` is called, if it has one.
      context: of the worker.
      seed: of the run; a worker's final epsilon is drawn by seed and task.
    """

    def __init__(self, config, agent, policy, context: Context, seed: int):
        self._config, self._agent, self._policy = config, agent, policy
        self._final = exploration.drawn_epsilon(
            context.task, seed, config.epsilon_final, config.epsilon_probabilities
        )
        self._synced: tuple[int, int] | None = None

    def update(self, parameters: GlobalParameters) -> None:
        """After a pull: what the new global steps mean."""
        config, steps = self._config, parameters.steps
        if isinstance(self._policy, AnnealedPolicy):
            epsilon = exploration.linear_epsilon(
                steps, config.epsilon_start, self._final, config.epsilon_decay_steps
            )
            self._policy.set_epsilon(np.full(config.environments_per_worker, epsilon))
        # Also when the parameters were set back: the target may be of the discarded line.
        period = (steps // config.target_period_steps, parameters.epoch)
        if period != self._synced:
            self._synced = period
            self._agent.initialize()
