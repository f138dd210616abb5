"""Publishes a policy's parameters, on a period of learner steps, late if an experiment wants it."""

from __future__ import annotations

import collections

from tfdrl.rpc.run_server import TrainingServer


class Publisher:
    """Publishes the variables of an agent's collect policy.

    Args:
      service: from which roles pull.
      agent: a TFAgent.
      period_steps: learner steps between two publications.
      lag_steps: publishes the parameters of so many learner steps ago: an artificial policy lag.
    """

    def __init__(self, service: TrainingServer, agent, period_steps: int, lag_steps: int = 0):
        self._service, self._agent, self._period_steps = service, agent, period_steps
        self._versions = collections.deque()  # (step, tensors), oldest first
        self._lag_steps = lag_steps

    def publish_if_due(self, step: int) -> None:
        """Publishes if the period has passed since the last time."""
        if step - self._versions[-1][0] >= self._period_steps:
            self.publish(step)

    def publish(self, step: int) -> None:
        """Publishes the parameters of this step, or those of `lag_steps` before."""
        if self._versions and self._versions[-1][0] == step:
            return
        versions = self._versions
        before = versions[0][0] if versions else None
        variables = self._agent.collect_policy.variables()
        versions.append((step, [variable.numpy() for variable in variables]))
        while len(versions) > 1 and versions[1][0] <= step - self._lag_steps:
            versions.popleft()
        if versions[0][0] != before:
            self._service.publish(*versions[0])
