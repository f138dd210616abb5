"""Sequences whose observations are stacks of frames, stored with each frame once.

A stack of k frames holds what the k-1 steps before showed, zeros before the start of a game. A
lost life ends an episode and no game: where stacks begin anew is stored with the frames.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfdrl.types import Unrolls, stack_starts


class Frames(NamedTuple):
    """The observations of sequences of T+1 steps, each frame once.

    frames  [B, T+k, ...], the oldest first
    starts  <bool>[B, T+1], where a stack is empty but for its newest frame
    """

    frames: Any
    starts: Any


def thin_signature(signature: Unrolls, frame_stack: int) -> Unrolls:
    """Of what `thin` returns, from `unroll_tables.unroll_signature`."""
    if frame_stack == 1:
        return signature
    length, *shape, _ = signature.steps.observation.shape
    frames = tf.TensorSpec([length + frame_stack - 1, *shape], signature.steps.observation.dtype)
    observation = Frames(frames, tf.TensorSpec([length], tf.bool))
    return signature._replace(steps=signature.steps._replace(observation=observation))


def thin(unrolls: Unrolls, frame_stack: int) -> Unrolls:
    """Replaces observations [B, T+1, ..., k] by `Frames`."""
    if frame_stack == 1:
        return unrolls
    steps = unrolls.steps
    stacks = steps.observation
    before = np.moveaxis(stacks[:, 0, ..., :-1], -1, 1)
    frames = np.concatenate([before, stacks[..., -1]], axis=1)
    thinned = Frames(frames, stack_starts(steps.step_type, stacks))
    return unrolls._replace(steps=steps._replace(observation=thinned))


def restack(observation: Frames, frame_stack: int) -> tf.Tensor:
    """The observations [B, T+1, ..., k]; without stacks they are what came."""
    if frame_stack == 1:
        return observation
    frames, starts = observation.frames, tf.cast(observation.starts, tf.int32)
    length = starts.shape[1]
    # What the first stack holds is right as it is, whatever its step is.
    episode = tf.cumsum(tf.concat([tf.zeros_like(starts[:, :1]), starts[:, 1:]], axis=1), axis=1)
    parts = []
    for age in reversed(range(frame_stack)):  # steps since a frame was new
        first = frame_stack - 1 - age
        then = tf.concat([tf.zeros_like(episode[:, :age]), episode], axis=1)[:, :length]
        is_same = tf.reshape(then == episode, [-1, length] + [1] * (frames.shape.rank - 2))
        part = frames[:, first : first + length]
        parts.append(tf.where(is_same, part, tf.zeros_like(part)))
    return tf.stack(parts, axis=-1)
