"""What a learner of Gorila learns from transitions with, and what it keeps from the servers."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfdrl.environments.batched import BatchedEnvironment
from tfdrl.experience.transitions import to_trajectory
from tfdrl.parameter_server.client import GlobalParameters
from tfdrl.parameter_server.gradients import LossGradient
from tfdrl.parameter_server.outlier_filter import OutlierFilter
from tfdrl.parameter_server.protocol import OUTLIER
from tfdrl.parameter_server.target_network import TargetNetwork
from tfdrl.types import Transitions, map_specs


def transition_gradient(
    agent, environment: BatchedEnvironment, batch_size: int, jit_compile: bool = False
) -> LossGradient:
    """The gradient of an agent's loss on `Transitions` of [B, ...]."""
    example = _zeros(environment, batch_size)

    def arguments(batch: Transitions):
        return {"experience": to_trajectory(batch, tf.stack)}

    return LossGradient(agent, arguments, [example], jit_compile)


def trajectory_gradient(
    agent, environment: BatchedEnvironment, batch_size: int, jit_compile: bool = False
) -> LossGradient:
    """The gradient of an agent's loss on a Trajectory of [B, 2, ...], as the replay gives it."""
    example = to_trajectory(_zeros(environment, batch_size))
    arguments = lambda experience: {"experience": experience}  # noqa: E731
    return LossGradient(agent, arguments, [example], jit_compile)


def _zeros(environment: BatchedEnvironment, batch_size: int) -> Transitions:
    def zeros(spec):
        return np.zeros((batch_size, *spec.shape), spec.dtype)

    observation = map_specs(zeros, environment.observation_spec)
    number = np.zeros(batch_size, np.float32)
    return Transitions(
        observation, map_specs(zeros, environment.action_spec), number, number, observation
    )


class GradientLearner:
    """One learner: computes gradients, withholds outliers, keeps the target network in step.

    Args:
      gradient: of the agent's loss.
      parameters: connected.
      target: the agent's, which follows the servers' updates.
      outliers: which losses' gradients are withheld.
    """

    def __init__(
        self,
        gradient: LossGradient,
        parameters: GlobalParameters,
        target: TargetNetwork,
        outliers: OutlierFilter,
    ):
        self._gradient, self._parameters = gradient, parameters
        self._target, self._outliers = target, outliers
        self._target.update(parameters.version, parameters.epoch)

    def learn(self, *batch) -> None:
        """One gradient, sent or withheld; the variables are then the servers' newest."""
        gradient, parameters = self._gradient(*batch), self._parameters
        if gradient.is_finite and not self._outliers.accepts(gradient.loss):
            parameters.withhold(OUTLIER)
        else:
            parameters.push(gradient, steps=1)
        self._target.update(parameters.version, parameters.epoch)
