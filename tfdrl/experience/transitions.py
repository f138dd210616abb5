"""Makes n-step transitions of the steps that an actor takes, a block at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tree
from tf_agents.trajectories import time_step, trajectory

from tfdrl.experience.frame_stacks import FramePairs, Frames
from tfdrl.ops import priorities as priorities_ops
from tfdrl.ops import returns
from tfdrl.rpc import clocks
from tfdrl.runtime.nests import row_writer, rows_like
from tfdrl.types import LAST, Nest, TimeSteps, Transitions

#: Write times are stored modulo this, so that float32 resolves them to 1/128 s.
TIME_PERIOD_SECS = 2.0**16


class TransitionBlock(NamedTuple):
    """Rows for the replay: t is the time of the observation, t - n that of the transition.

    rows          TransitionItem of observation [T, N, ...] (of stacks, the newest frame),
                  action [T, N, ...] and step <float32>[T, N, 4], of stacks [T, N, n+6]
    length_steps  <int32>[T, N], m: the transition bootstraps from the observation at t - n + m
    is_valid      <bool>[T, N], whether a transition began at t - n
    priority      <float32>[T, N], |G - Q(s, a)| by the actor's own Q-values; 1 without them
    """

    rows: TransitionItem
    length_steps: np.ndarray
    is_valid: np.ndarray
    priority: np.ndarray


class TransitionAssembler:
    """Collects the steps of N environments and hands them out in blocks, without per-step work.

    A transition is complete n steps after it began, when the Q-values of its last observation
    are known too; at an episode's end the windows are shorter (Ape-X, appendix F). The last n
    steps of a block begin the next.

    Args:
      num_envs: N.
      n: steps of a full window.
      gamma: discount factor of one step.
      block_steps: T, steps of each environment in a block.
    """

    def __init__(self, num_envs: int, n: int, gamma: float, block_steps: int):
        self._n, self._gamma, self._block_steps = n, gamma, block_steps
        self._length = n + block_steps
        self._observation = self._action = self._write_row = None
        shape = (self._length, num_envs)
        self._reward, self._discount, self._version = (
            np.zeros(shape, np.float32) for _ in range(3)
        )
        self._q_taken, self._max_q = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
        self._is_last, self._ends = np.zeros(shape, bool), np.zeros(shape, bool)
        self._has_q = False
        self._stored = 0
        self._overlap = 0  # steps at the front that an earlier block handed out

    def add(
        self,
        time_step: TimeSteps,
        action: Nest,
        next_time_step: TimeSteps,
        info: Nest,
        version: int,
    ) -> TransitionBlock | None:
        """Adds one step of each environment; returns a block when enough are there.

        Args:
          time_step: the time step that was acted upon.
          action: nest of [N, ...].
          next_time_step: the time step that followed.
          info: of the policy; `q_taken` and `max_q` <float32>[N] give initial priorities.
          version: of the parameters that acted.
        """
        if self._observation is None:
            self._observation = rows_like(time_step.observation, self._length)
            self._action = rows_like(action, self._length)
            self._write_row = row_writer((self._observation, self._action))
            self._has_q = hasattr(info, "q_taken")
        t = self._stored
        self._write_row(t, (time_step.observation, action))
        self._reward[t], self._discount[t] = next_time_step.reward, next_time_step.discount
        self._is_last[t], self._ends[t] = (
            time_step.step_type == LAST,
            next_time_step.step_type == LAST,
        )
        self._version[t] = version
        if self._has_q:
            self._q_taken[t], self._max_q[t] = info.q_taken, info.max_q
        self._stored += 1
        return self._take_block() if self._stored == self._length else None

    def _take_block(self) -> TransitionBlock:
        n, starts = self._n, self._block_steps
        used = slice(0, self._length - 1)
        windows = returns.n_step_windows(
            self._reward[used], self._discount[used], self._ends[used], n, self._gamma
        )
        frames = self._observation if isinstance(self._observation, Frames) else None
        columns = step_columns(n) if frames else STEP_COLUMNS
        step = np.empty((starts, self._reward.shape[1], columns), np.float32)
        step[..., N_STEP_RETURN] = windows.n_step_return
        step[..., DISCOUNT] = windows.discount
        step[..., VERSION] = self._version[:starts]
        step[..., TIME_SECS] = clocks.unix_secs() % TIME_PERIOD_SECS
        if frames:
            step[..., LENGTH_STEPS] = windows.length_steps
            step[..., DEPTHS:] = np.lib.stride_tricks.sliding_window_view(frames.depth, n + 1, 0)
        block = TransitionBlock(
            rows=TransitionItem(
                tree.map_structure(lambda x: x[n:].copy(), self._stored_observation()),
                tree.map_structure(lambda x: x[:starts].copy(), self._action),
                step,
            ),
            length_steps=windows.length_steps,
            is_valid=~self._is_last[:starts],
            priority=self._priorities(windows),
        )
        block = block if self._overlap else self._with_first_rows(block)
        self._keep_last_steps()
        return block

    def _stored_observation(self) -> Nest:
        observation = self._observation
        return observation.frames if isinstance(observation, Frames) else observation

    def _priorities(self, windows) -> np.ndarray:
        starts = self._block_steps
        if not self._has_q:
            return np.ones_like(windows.n_step_return)
        ends = np.arange(starts)[:, None] + windows.length_steps
        max_q = np.take_along_axis(self._max_q, ends, axis=0)
        return priorities_ops.initial_priorities(
            windows.n_step_return, self._gamma * windows.discount, self._q_taken[:starts], max_q
        )

    def _with_first_rows(self, block: TransitionBlock) -> TransitionBlock:
        """Puts the first n observations before the first block: nothing began n steps earlier."""
        n = self._n
        rows = TransitionItem(
            tree.map_structure(lambda x: x.copy(), self._stored_observation()),
            *tree.map_structure(lambda x: _pad(x, n), tuple(block.rows[1:])),
        )
        return TransitionBlock(rows, *(_pad(x, n) for x in block[1:]))

    def _keep_last_steps(self) -> None:
        arrays = [
            *tree.flatten((self._observation, self._action)),
            self._reward,
            self._discount,
            self._version,
            self._q_taken,
            self._max_q,
            self._is_last,
            self._ends,
        ]
        for array in arrays:
            array[: self._n] = array[self._block_steps :].copy()
        self._stored = self._overlap = self._n


def _pad(array: np.ndarray, n: int) -> np.ndarray:
    return np.concatenate([np.zeros((n, *array.shape[1:]), array.dtype), array])


def age_secs(written_secs: np.ndarray, now_secs: float | None = None) -> np.ndarray:
    """How old items are, by their column TIME_SECS; 0 where an actor's clock is a little ahead.

    Args:
      written_secs: <float32>[...], Unix times modulo TIME_PERIOD_SECS.
      now_secs: Unix time; now if None.
    """
    now_secs = clocks.unix_secs() if now_secs is None else now_secs
    since_secs, margin_secs = now_secs - np.float64(written_secs), 600.0
    return np.maximum((since_secs + margin_secs) % TIME_PERIOD_SECS - margin_secs, 0.0)


def to_trajectory(batch: Transitions, stack=np.stack) -> trajectory.Trajectory:
    """Transitions [B, ...] -> Trajectory [B, 2, ...], as agents train on it (`NStepDqnAgent`).

    Args:
      stack: of arrays, or `tf.stack` for tensors.
    """

    def pair(first, second):
        return stack([first, second], axis=1)

    step_type = np.full(batch.n_step_return.shape[0], time_step.StepType.MID, np.int32)
    mid = pair(step_type, step_type)
    observation = batch.observation
    if not isinstance(observation, FramePairs):
        observation = tree.map_structure(pair, observation, batch.next_observation)
    return trajectory.Trajectory(
        step_type=mid,
        observation=observation,
        action=tree.map_structure(lambda x: pair(x, x), batch.action),
        policy_info=(),
        next_step_type=mid,
        reward=pair(batch.n_step_return, batch.n_step_return),
        discount=pair(batch.discount, batch.discount),
    )


#: The columns of `TransitionItem.step`; those after the fourth are there for stacks only.
N_STEP_RETURN, DISCOUNT, VERSION, TIME_SECS, LENGTH_STEPS, DEPTHS = range(6)
STEP_COLUMNS = 4


def step_columns(n: int) -> int:
    """Columns of `TransitionItem.step` where observations are stacks, for windows of n steps."""
    return DEPTHS + n + 1


class TransitionItem(NamedTuple):
    """One item: an n-step transition. s_t and s_{t+m} are references to what is stored once.

    observation  nest of [2, ...]   s_t and s_{t+m}; of stacks of k frames, the single frames
                                    [n+k, ...] of the steps t-k+1 to t+n
    action       nest of [1, ...]   a_t
    step         <float32>[1, 4]    n-step return; discount gamma^(m-1), 0 after a termination;
                                    version of the parameters that acted; Unix time when it was
                                    written, modulo `transitions.TIME_PERIOD_SECS`; of stacks
                                    [1, n+6]: and m, and the stacks' depths at t to t+n
    """

    observation: Any
    action: Any
    step: Any
