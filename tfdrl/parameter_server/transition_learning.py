"""What a learner of Gorila learns from transitions with, and what it keeps from the servers."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfdrl.contracts import AnnealedPolicy
from tfdrl.environments.batched import BatchedEnvironment
from tfdrl.experience.transitions import to_trajectory
from tfdrl.experiment import Experiment
from tfdrl.ops import exploration
from tfdrl.parameter_server.client import GlobalParameters
from tfdrl.parameter_server.coordinator import Learner
from tfdrl.parameter_server.gradients import LossGradient
from tfdrl.parameter_server.outlier_filter import OutlierFilter
from tfdrl.parameter_server.protocol import OUTLIER
from tfdrl.runtime import agent_factory
from tfdrl.types import Transitions, map_specs


def transition_gradient(agent, environment: BatchedEnvironment, batch_size: int) -> LossGradient:
    """The gradient of an agent's loss on `Transitions` of [B, ...]."""
    example = _zeros(environment, batch_size)

    def arguments(batch: Transitions):
        return {"experience": to_trajectory(batch, tf.stack)}

    return LossGradient(agent, arguments, [example])


def trajectory_gradient(agent, environment: BatchedEnvironment, batch_size: int) -> LossGradient:
    """The gradient of an agent's loss on a Trajectory of [B, 2, ...], as the replay gives it."""
    example = to_trajectory(_zeros(environment, batch_size))
    return LossGradient(agent, lambda experience: {"experience": experience}, [example])


def _zeros(environment: BatchedEnvironment, batch_size: int) -> Transitions:
    def zeros(spec):
        return np.zeros((batch_size, *spec.shape), spec.dtype)

    observation = map_specs(zeros, environment.observation_spec)
    number = np.zeros(batch_size, np.float32)
    return Transitions(
        observation, map_specs(zeros, environment.action_spec), number, number, observation
    )


def make_learner(experiment: Experiment) -> Learner:
    """The agent with the run's initial values, what its loss trains, and the specs."""
    config = experiment.architecture
    agent_factory.set_seed(experiment.seed)
    with config.environment(num_envs=1, training=True, seed=experiment.seed) as environment:
        agent = agent_factory.make_agent(config.agent, environment)
        gradient = transition_gradient(agent, environment, config.batch_size)
        specs = agent_factory.specs_text(environment)
        return Learner(agent, gradient.variables, specs, environment.return_range)


class GradientLearner:
    """One learner: computes gradients, withholds outliers, keeps the target network in step.

    Args:
      config: settings of Gorila.
      agent: its `initialize()` copies the network to its target.
      gradient: of the agent's loss.
      parameters: connected.
    """

    def __init__(self, config, agent, gradient: LossGradient, parameters: GlobalParameters):
        self._agent, self._gradient, self._parameters = agent, gradient, parameters
        self._target_period_updates = config.target_period_updates
        self._filter = OutlierFilter(
            config.outlier_num_std,
            config.outlier_warmup,
            config.outlier_max_rejections_in_a_row,
        )
        self._target: tuple[int, int] | None = None
        self.sync_target()

    def learn(self, *batch) -> None:
        """One gradient, sent or withheld; the variables are then the servers' newest."""
        gradient = self._gradient(*batch)
        if gradient.is_finite and not self._filter.accepts(gradient.loss):
            self._parameters.withhold(OUTLIER)
        else:
            self._parameters.push(gradient, steps=1)
        self.sync_target()

    def sync_target(self) -> None:
        """theta^- <- theta every N updates of the servers, whoever made them (section 4)."""
        parameters = self._parameters
        # Also when the parameters were set back: the target may be of the discarded line.
        period = (parameters.version // self._target_period_updates, parameters.epoch)
        if period != self._target:
            self._target = period
            self._agent.initialize()


class GlobalEpsilon:
    """Anneals a policy's epsilon over the servers' updates; nothing for a policy without one.

    Args:
      config: settings of Gorila.
      policy: of `acting.collect_policy`.
      num_envs: environments that it acts in.
    """

    def __init__(self, config, policy, num_envs: int):
        self._config, self._policy, self._num_envs = config, policy, num_envs
        self._epsilon: float | None = None

    def update(self, version: int) -> None:
        """Sets what belongs to so many updates."""
        config = self._config
        epsilon = exploration.linear_epsilon(
            version, config.epsilon_start, config.epsilon_end, config.epsilon_decay_updates
        )
        if epsilon != self._epsilon and isinstance(self._policy, AnnealedPolicy):
            self._policy.set_epsilon(np.full(self._num_envs, epsilon))
            self._epsilon = epsilon
