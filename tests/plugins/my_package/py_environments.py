"""The corridor as a TF-Agents environment."""

import gin
import numpy as np
from tf_agents.environments import py_environment
from tf_agents.specs import array_spec
from tf_agents.trajectories import time_step


@gin.configurable
class PyCorridor(py_environment.PyEnvironment):
    """Places 0 to length - 1, the start in the middle; the right end gives 1, the left end 0."""

    def __init__(self, length=7):
        super().__init__()
        self._length = length
        self._place = length // 2

    def observation_spec(self):
        return array_spec.BoundedArraySpec((self._length,), np.float32, 0.0, 1.0)

    def action_spec(self):
        return array_spec.BoundedArraySpec((), np.int32, 0, 1)

    def _reset(self):
        self._place = self._length // 2
        return time_step.restart(self._observation())

    def _step(self, action):
        if self._current_time_step.is_last():
            return self.reset()
        self._place += 1 if action == 1 else -1
        at_right_end = self._place == self._length - 1
        if at_right_end or self._place == 0:
            return time_step.termination(self._observation(), np.float32(at_right_end))
        return time_step.transition(self._observation(), np.float32(0))

    def _observation(self):
        return np.eye(self._length, dtype=np.float32)[self._place]
