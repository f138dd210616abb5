"""What a learner of Gorila learns from transitions with, and what it keeps from the servers."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfdrl.environments.batched import BatchedEnvironment
from tfdrl.experience.frame_stacks import FramePairs, with_stacks
from tfdrl.experience.transitions import to_trajectory
from tfdrl.parameter_server.client import GlobalParameters
from tfdrl.parameter_server.gradients import LossGradient
from tfdrl.parameter_server.outlier_filter import OutlierFilter
from tfdrl.parameter_server.protocol import OUTLIER
from tfdrl.parameter_server.target_network import TargetNetwork
from tfdrl.replay import transition_dataset
from tfdrl.replay.transition_table import transition_signature
from tfdrl.types import Transitions, map_specs


def transition_gradient(
    agent,
    environment: BatchedEnvironment,
    batch_size: int,
    n_step: int,
    frame_stack: int,
    jit_compile: bool = False,
) -> LossGradient:
    """The gradient of an agent's loss on `Transitions` of [B, ...], as `UniformReplay` draws them.

    Args:
      agent: that trains on transitions.
      environment: gives the specs.
      batch_size: B.
      n_step: steps of a full window.
      frame_stack: k where the replay gives `FramePairs`; else 1.
      jit_compile: whether XLA compiles it.
    """

    def zeros(spec):
        return np.zeros((batch_size, *spec.shape), spec.dtype)

    def arguments(batch: Transitions):
        return {"experience": with_stacks(to_trajectory(batch, tf.stack))}

    observation = next_observation = map_specs(zeros, environment.observation_spec)
    number = np.zeros(batch_size, np.float32)
    if frame_stack > 1:
        _, *shape, _ = observation.shape
        frames = np.zeros((batch_size, n_step + frame_stack, *shape), observation.dtype)
        depth = np.zeros((batch_size, n_step + 1), np.uint8)
        observation = FramePairs(frames, depth, np.zeros(batch_size, np.int32))
        next_observation = ()
    action = map_specs(zeros, environment.action_spec)
    example = Transitions(observation, action, number, number, next_observation)
    return LossGradient(agent, arguments, [example], jit_compile)


def trajectory_gradient(
    agent,
    environment: BatchedEnvironment,
    batch_size: int,
    n_step: int,
    jit_compile: bool = False,
) -> LossGradient:
    """The gradient of an agent's loss on a Trajectory of [B, 2, ...], as the replay gives it."""
    example = transition_dataset.to_trajectory(
        tf.nest.map_structure(
            lambda spec: tf.zeros((batch_size, *spec.shape), spec.dtype),
            transition_signature(environment, n_step),
        )
    )

    def arguments(experience):
        return {"experience": with_stacks(experience)}

    return LossGradient(agent, arguments, [example], jit_compile)


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
