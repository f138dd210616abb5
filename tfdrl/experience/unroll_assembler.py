"""Cuts the steps of N environments into unrolls of T transitions."""

from __future__ import annotations

import numpy as np
import tree

from tfdrl.rpc import clocks
from tfdrl.types import Nest, TimeSteps, Unrolls


class UnrollAssembler:
    """Copies each step into its place in N unrolls, which are contiguous and sent whole.

    Args:
      num_envs: N.
      unroll_steps: T, the overlap included.
      overlap: transitions at an unroll's end that are the first of the next; below T.
      frame_stack: k, where observations are single frames, `Frames` [N, ...]: unrolls have those of
        the k-1 steps before, too.
    """

    def __init__(self, num_envs: int, unroll_steps: int, overlap: int = 0, frame_stack: int = 1):
        self._num_envs, self._unroll_steps, self._overlap = num_envs, unroll_steps, overlap
        self._frame_stack, self._frames = frame_stack, None
        self._steps = self._acted = self._policy_state = self._shared = None
        self._position = 0

    @property
    def is_at_start(self) -> bool:
        """Whether the next step begins an unroll: the only moment to change parameters."""
        return self._steps is None

    def begin(self, policy_state: Nest) -> None:
        """Sets the policy state before the unroll that begins, nest of [N, ...]."""
        self._policy_state = tree.map_structure(np.asarray, policy_state)

    def add(
        self,
        time_step: TimeSteps,
        action: Nest,
        next_time_step: TimeSteps,
        info: Nest,
        version: int,
    ) -> Unrolls | None:
        """Adds a transition of each environment; returns the N unrolls that it completes.

        Args:
          time_step: steps before the action.
          action: nest of [N, ...].
          next_time_step: steps after it.
          info: of the policy, nest of [N, ...].
          version: of the parameters that chose the action.
        """
        if self.is_at_start:
            self._start(time_step, (action, info))
        self._write(self._acted, self._position, (action, info))
        self._position += 1
        self._write(self._steps, self._position, next_time_step)
        if self._position < self._unroll_steps:
            return None
        steps, (actions, infos) = self._steps, self._acted
        self._shared, self._steps = (steps, self._acted), None
        if self._frame_stack > 1:
            steps = steps._replace(observation=steps.observation._replace(frames=self._frames))
        return Unrolls(
            steps=steps,
            action=actions,
            info=infos,
            policy_state=self._policy_state,
            version=np.full(self._num_envs, version, np.int64),
            time_secs=np.full(self._num_envs, clocks.unix_secs()),
        )

    def _start(self, time_step: TimeSteps, acted: Nest) -> None:
        self._steps = self._empty(time_step, self._unroll_steps + 1)
        if self._frame_stack > 1:
            self._make_room_for_frames()
        self._acted = self._empty(acted, self._unroll_steps)
        self._position = 0 if self._shared is None else self._overlap
        if self._position:
            shared = slice(self._unroll_steps - self._overlap, self._unroll_steps)
            mine, others = (self._steps, self._acted), self._shared
            for to, leaf in zip(tree.flatten(mine), tree.flatten(others)):
                to[:, : self._overlap] = leaf[:, shared]
        self._write(self._steps, self._position, time_step)

    def _make_room_for_frames(self) -> None:
        """Frames of the unroll's steps come after those of k-1 steps before."""
        before, observation = self._frames, self._steps.observation
        first, shape = self._frame_stack - 1, list(observation.frames.shape)
        shape[1] += first
        self._frames = np.zeros(shape, observation.frames.dtype)
        if before is not None:  # its last step but the overlap is the first of this
            known = first + self._overlap
            self._frames[:, :known] = before[:, -known - 1 : -1]
        observation = observation._replace(frames=self._frames[:, first:])
        self._steps = self._steps._replace(observation=observation)

    def _empty(self, example: Nest, length: int) -> Nest:
        return tree.map_structure(
            lambda leaf: np.empty((self._num_envs, length, *leaf.shape[1:]), leaf.dtype), example
        )

    @staticmethod
    def _write(target: Nest, position: int, values: Nest) -> None:
        for to, leaf in zip(tree.flatten(target), tree.flatten(values)):
            to[:, position] = leaf
