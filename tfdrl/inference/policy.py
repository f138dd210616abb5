"""A policy computed for batches of many actors' environments, by the learner's own variables."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from tf_agents.trajectories import time_step

from tfdrl.inference.batcher import Batcher
from tfdrl.inference.state_table import Place, StateTable
from tfdrl.rpc import environment_specs as messages
from tfdrl.runtime.compiled import compiled
from tfdrl.runtime.host_tensors import brought_to_host, shared
from tfdrl.runtime.plain_nests import plain
from tfdrl.types import Nest, TimeSteps

#: Of the arrays of a batch: where the state of its environments is.
_ROW = 3


class Acted(NamedTuple):
    """What a policy answers for n environments: leaves of [n, ...] of each nest."""

    action: Sequence[np.ndarray]
    state: Sequence[np.ndarray]
    info: Sequence[np.ndarray]


class BatchedPolicy:
    """A policy computed for batches that blocks of environments share.

    Nests are taken apart and put together where an unroll begins or ends, not at every step: that
    would take longer than all else of a step. The policy's state stays on the device, as do the
    frames of stacks; after each step it comes to the host as well, since unrolls begin with it.

    Args:
      policy: a TFPolicy of the learner's own variables.
      specs: of one environment.
      environments: that may be played at the same time.
      rows_wanted, rows_present, max_rows, time_limit_secs: of a batch, as `Batcher` takes them.
      devices: inference devices, in turn; one batch each at a time. The first has the state, which
        the others read and write there: an environment is computed by whichever is free.
      jit_compile: whether XLA compiles the policy.
      epsilon: <float>[environments], for a policy whose state has a field of that name.
    """

    def __init__(
        self,
        policy,
        specs: messages.EnvironmentSpecs,
        *,
        environments: int,
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
        self._step = self._policy_step
        if jit_compile:  # not the table, which XLA would copy whole at each step
            self._step = tf.function(self._policy_step, jit_compile=True)
        # One function for each: a device's own copy of the graph.
        self._runs = [compiled(self._act, convert=shared) for _ in devices]
        self._state_spec, self._info_spec = plain(policy.policy_state_spec), plain(policy.info_spec)
        self._state_specs = tf.nest.flatten(self._state_spec)
        self._info_leaves = len(tf.nest.flatten(self._info_spec))
        stack, first_device = specs.frame_stack, self._devices[0]
        self._table = StateTable(
            self._state_specs, specs.observation, stack, environments, first_device
        )
        steps = [((), np.int32), ((), np.float32), ((), np.float32), ((), np.int32)]
        observations = [(spec.shape, spec.dtype) for spec in specs.observation]
        if stack > 1:
            observations = [(observations[0][0][:-1], observations[0][1]), ((), np.uint8)]
        self._batcher = Batcher(
            [*steps, *observations],
            self._compute,
            max_rows=max_rows,
            rows_wanted=rows_wanted,
            rows_present=rows_present,
            time_limit_secs=time_limit_secs,
            slots=len(self._devices),
        )

    def begin(self, first: int, rows: int) -> Place:
        """Room for a new run of these environments, and the policy's state before its steps."""
        state = self._policy.get_initial_state(rows)
        if self._epsilon is not None and hasattr(state, "epsilon"):
            epsilon = self._epsilon[first : first + rows]
            state = state._replace(epsilon=tf.constant(epsilon, tf.float32))
        return self._table.take([leaf.numpy() for leaf in tf.nest.flatten(state)], rows)

    def end(self, place: Place) -> None:
        """The run has been replaced."""
        self._table.give_back(place)

    def state_nest(self, leaves: Sequence[np.ndarray]) -> Nest:
        """The nest of a state's leaves, as unrolls have it."""
        return tf.nest.pack_sequence_as(self._state_spec, leaves)

    def info_nest(self, leaves: Sequence[np.ndarray]) -> Nest:
        """The nest of a policy info's leaves, as unrolls have it."""
        return tf.nest.pack_sequence_as(self._info_spec, leaves)

    async def act(self, steps: TimeSteps, row: np.ndarray) -> Acted:
        """What the policy answers for a block of environments.

        Args:
          steps: of n environments; its observation is a list of leaves, or `Frames`.
          row: <int32>[n] of their place, for the index of the steps; the same step may come again.
        """
        given = [steps.step_type, steps.reward, steps.discount, row, *steps.observation]
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

    def _act(self, step_type, reward, discount, row, *observation):
        table = self._table
        if self._specs.frame_stack > 1:
            observation = [table.push(row, *observation)]
        state = table.read(row)
        action, state, info = self._step(step_type, reward, discount, observation, state)
        table.write(row, state)
        return brought_to_host((action, state, info))

    def _policy_step(self, step_type, reward, discount, observation, state):
        observation = messages.pack(self._specs.observation_nest, observation)
        steps = time_step.TimeStep(step_type, reward, discount, observation)
        state = tf.nest.pack_sequence_as(self._policy.policy_state_spec, state)
        step = self._policy.action(steps, state)
        action = messages.flatten(self._specs.action_nest, step.action)
        return action, tf.nest.flatten(step.state), tf.nest.flatten(step.info)

    def _compute(self, arrays: Sequence[np.ndarray], count: int, slot: int) -> list[np.ndarray]:
        arrays[_ROW][count:] = self._table.unused_row
        with tf.device(self._devices[slot]):
            outputs, _ = self._runs[slot](arrays)
        return [output.numpy() for output in outputs]
