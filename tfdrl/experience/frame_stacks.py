"""Observations that are stacks of k frames, with each frame once.

A stack shows its newest frame and those of up to k-1 steps before, and zeros before the start of a
game. Its depth is how many frames it shows: 1 at the start, then one more at each step, up to k. A
lost life ends an episode and no game: the stack goes on.

Single frames are what travels and is stored; `restack` is for the compiled step that trains.

Who acts where the environment is takes its stacks as they are: for 4 games of Pong the environment
makes them in 15 us and handing them to TensorFlow takes 7 us longer than handing it frames, of the
2,500 us that inference takes on a core; stacks made in its compiled step would cost more. Where
observations travel first, under SEED RL, `state_table` makes stacks on the device that infers.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfdrl.environments.batched import BatchedEnvironment
from tfdrl.environments.returned import misfit
from tfdrl.types import Nest, TimeSteps, Unrolls, stack_starts

#: k bytes as one number, whose lowest byte is the oldest frame's.
_WORDS = {2: tf.uint16, 4: tf.uint32, 8: tf.uint64}


class Frames(NamedTuple):
    """The observations of T+1 steps on end.

    frames  [B, T+k, ...], the oldest first: those of the k-1 steps before come before
    depth   <uint8>[B, T+1], how many frames each stack shows; what is not shown may be anything

    Of one step of N environments, frames [N, ...] are the newest and depth is <uint8>[N].
    """

    frames: Any
    depth: Any


class FramePairs(NamedTuple):
    """The observations at t and t+m, in windows of n >= m steps.

    frames        [B, n+k, ...] of the steps t-k+1 to t+n
    depth         <uint8>[B, n+1] of the steps t to t+n
    length_steps  <int32>[B], m
    """

    frames: Any
    depth: Any
    length_steps: Any


def next_depth(depth: np.ndarray, starts: np.ndarray, frame_stack: int) -> np.ndarray:
    """Of the stacks that follow those of `depth`; `starts` says which of them begin anew."""
    depth = np.minimum(depth, np.uint8(frame_stack - 1))
    depth += np.uint8(1)
    depth[starts] = 1
    return depth


class SingleFrames:
    """Takes the newest frames out of the stacks that N environments show, step after step.

    Where the environments do not stack, nothing changes.

    Args:
      environment: says by `frame_stack` that it stacks.
    """

    def __init__(self, environment: BatchedEnvironment):
        self._frame_stack = environment.frame_stack
        self._name = environment.name or type(environment).__name__
        self._depth = np.zeros(environment.num_envs, np.uint8)
        self._compares, self._before = not environment.is_checked, None

    def __call__(self, time_step: TimeSteps) -> TimeSteps:
        """Steps whose observation is `Frames`.

        Raises:
          MisfitError: the environment's own stacks are not those of its last k frames. Asked of
            environments that do not check themselves what they return.
        """
        if self._frame_stack == 1:
            return time_step
        stacks = time_step.observation
        starts = stack_starts(time_step.step_type, stacks)
        if self._compares:
            self._compare(stacks, starts)
        self._depth = next_depth(self._depth, starts, self._frame_stack)
        return time_step._replace(observation=Frames(stacks[..., -1], self._depth))

    def _compare(self, stacks: np.ndarray, starts: np.ndarray) -> None:
        before = np.zeros_like(stacks) if self._before is None else self._before
        goes_on = (stacks[..., :-1] == before[..., 1:]).reshape(len(stacks), -1).all(axis=1)
        self._before = stacks
        if not (goes_on | starts).all():
            expected = f"the last {self._frame_stack} frames (its frame_stack), oldest first"
            came = f"a stack in environment {int(np.argmin(goes_on | starts))} that does not go on"
            raise misfit(
                self._name,
                f"{came} with the one before",
                f"{expected}, zeros before a "
                "game; frame_stack = 1 says that observations are no such stacks",
            )


def with_single_frames(environment: BatchedEnvironment, steps: Iterable[tuple]) -> Iterator[tuple]:
    """What an `ActorLoop` yields, with the newest frame of each stack: see `SingleFrames`."""
    singles, after = SingleFrames(environment), None
    for time_step, action, next_time_step, info in steps:
        before = singles(time_step) if after is None else after
        after = singles(next_time_step)
        yield before, action, after, info


def thin_signature(signature: Unrolls, frame_stack: int) -> Unrolls:
    """Of unrolls with `Frames`, from `unroll_tables.unroll_signature`."""
    if frame_stack == 1:
        return signature
    length, *shape, _ = signature.steps.observation.shape
    frames = tf.TensorSpec([length + frame_stack - 1, *shape], signature.steps.observation.dtype)
    observation = Frames(frames, tf.TensorSpec([length], tf.uint8))
    return signature._replace(steps=signature.steps._replace(observation=observation))


def thin(unrolls: Unrolls, frame_stack: int) -> Unrolls:
    """Replaces observations [B, T+1, ..., k] by `Frames`, unless they are that already."""
    if frame_stack == 1 or isinstance(unrolls.steps.observation, Frames):
        return unrolls
    steps = unrolls.steps
    stacks = steps.observation
    before = np.moveaxis(stacks[:, 0, ..., :-1], -1, 1)
    frames = np.concatenate([before, stacks[..., -1]], axis=1)
    starts = stack_starts(steps.step_type, stacks)
    # What the first stack holds is right as it is, whatever its step is.
    depths = [np.full(len(stacks), frame_stack, np.uint8)]
    for start in starts.T[1:]:
        depths.append(next_depth(depths[-1], start, frame_stack))
    thinned = Frames(frames, np.stack(depths, axis=1))
    return unrolls._replace(steps=steps._replace(observation=thinned))


def restack(observation: Nest) -> Nest:
    """The stacks of `Frames` [B, T+1, ..., k] or `FramePairs` [B, 2, ..., k], bit for bit.

    Any other observation is returned as it is.
    """
    if isinstance(observation, Frames):
        frames, depth = observation
        length = depth.shape[1]
        frame_stack = frames.shape[1] - length + 1
        parts = [frames[:, i : i + length] for i in range(frame_stack)]
        return _stacked()(parts, depth)
    if isinstance(observation, FramePairs):
        frames, depth, length_steps = observation
        frame_stack = frames.shape[1] - depth.shape[1] + 1
        steps = tf.stack([tf.zeros_like(length_steps), length_steps], axis=1)
        parts = [tf.gather(frames, steps + i, batch_dims=1) for i in range(frame_stack)]
        return _stacked()(parts, tf.gather(depth, steps, batch_dims=1))
    return observation


def with_stacks(experience: Any) -> Any:
    """A Trajectory whose observations are stacks, as agents take them."""
    return experience._replace(observation=restack(experience.observation))


def _stacked():
    """On a CPU, XLA makes one loop of it, five times as fast as one operation after the other."""
    is_cpu = not (tf.config.list_physical_devices("GPU") or tf.config.list_physical_devices("TPU"))
    return tf.function(_stack, jit_compile=True) if is_cpu else _stack


def _stack(parts: list[tf.Tensor], depth: tf.Tensor) -> tf.Tensor:
    """k tensors [B, S, ...], oldest frames first, and depth [B, S] -> [B, S, ..., k]."""
    frame_stack, rank = len(parts), parts[0].shape.rank
    depth = depth[(...,) + (None,) * (rank - 2)]
    shown = [
        tf.where(depth >= frame_stack - i, part, tf.zeros([], part.dtype))
        for i, part in enumerate(parts)
    ]
    word = _WORDS.get(frame_stack)
    if word is None or parts[0].dtype != tf.uint8:
        return tf.stack(shown, axis=-1)
    # Several times as fast as to move the bytes one by one.
    words = [
        tf.bitwise.left_shift(tf.cast(part, word), tf.constant(8 * i, word))
        for i, part in enumerate(shown)
    ]
    return tf.bitcast(functools.reduce(tf.bitwise.bitwise_or, words), tf.uint8)
