"""A policy computed for batches of many actors' environments, by the learner's own variables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import time_step

from tfdrl.inference.batcher import Batcher
from tfdrl.rpc import environment_specs as messages
from tfdrl.runtime.compiled import compiled
from tfdrl.types import Nest, TimeSteps


class Acted(NamedTuple):
    """What a policy answers for n environments: leaves of [n, ...] of each nest."""

    action: Sequence[np.ndarray]
    state: Sequence[np.ndarray]
    info: Sequence[np.ndarray]


class BatchedPolicy:
    """A policy computed for batches that blocks of environments share.

    Nests are taken apart and put together where an unroll begins or ends, not at every step: that
    would take longer than all else of a step.

    Args:
      policy: a TFPolicy of the learner's own variables.
      specs: of one environment.
      rows_wanted, rows_present, max_rows, time_limit_secs: of a batch, as `Batcher` takes them.
      devices: inference devices, in turn; one batch each at a time.
      jit_compile: whether XLA compiles the policy.
      epsilon: <float>[environments], for a policy whose state has a field of that name.
    """

    def __init__(
        self,
        policy,
        specs: messages.EnvironmentSpecs,
        *,
        rows_wanted: Callable[[], int],
        rows_present: Callable[[], int] = lambda: sys.maxsize,
        max_rows: int,
        time_limit_secs: float,
        devices: Sequence[str] = ("",),
        jit_compile: bool = False,
        epsilon: np.ndarray | None = None,
    ):
        self._policy, self._specs, self._epsilon = policy, specs, epsilon
        self._devices = list(devices)
        # One function for each: a device's own copy of the graph.
        self._runs = [compiled(self._act, jit_compile) for _ in devices]
        self._state_specs = tf.nest.flatten(policy.policy_state_spec)
        self._info_leaves = len(tf.nest.flatten(policy.info_spec))
        state = [(spec.shape, spec.dtype.as_numpy_dtype) for spec in self._state_specs]
        steps = [((), np.int32), ((), np.float32), ((), np.float32)]
        observations = [(spec.shape, spec.dtype) for spec in specs.observation]
        self._batcher = Batcher(
            [*steps, *observations, *state],
            self._compute,
            max_rows=max_rows,
            rows_wanted=rows_wanted,
            rows_present=rows_present,
            time_limit_secs=time_limit_secs,
            slots=len(self._devices),
        )

    def initial_state(self, first: int, rows: int) -> list[np.ndarray]:
        """Leaves of the policy's state before a run's first step, of these environments."""
        state = self._policy.get_initial_state(rows)
        if self._epsilon is not None and hasattr(state, "epsilon"):
            epsilon = self._epsilon[first : first + rows]
            state = state._replace(epsilon=tf.constant(epsilon, tf.float32))
        return [leaf.numpy() for leaf in tf.nest.flatten(state)]

    def state_nest(self, leaves: Sequence[np.ndarray]) -> Nest:
        """The nest of a state's leaves."""
        return tf.nest.pack_sequence_as(self._policy.policy_state_spec, leaves)

    def info_nest(self, leaves: Sequence[np.ndarray]) -> Nest:
        """The nest of a policy info's leaves."""
        return tf.nest.pack_sequence_as(self._policy.info_spec, leaves)

    async def act(self, steps: TimeSteps, state: Sequence[np.ndarray]) -> Acted:
        """What the policy answers for a block of environments.

        Args:
          steps: of n environments; its observation is a list of leaves.
          state: leaves of [n, ...], before the step.
        """
        given = [steps.step_type, steps.reward, steps.discount, *steps.observation, *state]
        outputs, rows = await self._batcher.compute(given)
        leaves = [output[rows] for output in outputs]
        actions, rest = len(self._specs.action), len(leaves) - self._info_leaves
        return Acted(leaves[:actions], leaves[actions:rest], leaves[rest:])

    def look_again(self) -> None:
        """Tells that `rows_wanted` may have changed."""
        self._batcher.look_again()

    def statistics(self) -> dict[str, float]:
        """Metrics since the last call."""
        return self._batcher.statistics.take()

    def close(self) -> None:
        """Blocks that wait get BatcherStoppedError."""
        self._batcher.close()

    def _act(self, step_type, reward, discount, *rest):
        leaves = len(self._specs.observation)
        observation = messages.pack(self._specs.observation_nest, rest[:leaves])
        steps = time_step.TimeStep(step_type, reward, discount, observation)
        step = self._policy.action(steps, self.state_nest(rest[leaves:]))
        action = messages.flatten(self._specs.action_nest, step.action)
        return action, tf.nest.flatten(step.state), tf.nest.flatten(step.info)

    def _compute(self, arrays: Sequence[np.ndarray], count: int, slot: int) -> list[np.ndarray]:
        del count
        with tf.device(self._devices[slot]):
            outputs, _ = self._runs[slot](arrays)
        return [output.numpy() for output in outputs]
