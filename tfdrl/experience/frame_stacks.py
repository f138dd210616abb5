"""Sequences whose observations are stacks of frames, stored with each frame once.

A stack of k frames holds what the k-1 steps before showed, zeros before the start of an episode.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from tfdrl.types import FIRST, Unrolls


def thin_signature(signature: Unrolls, frame_stack: int) -> Unrolls:
    """Of what `thin` returns, from `unroll_tables.unroll_signature`."""
    if frame_stack == 1:
        return signature
    length, *shape, _ = signature.steps.observation.shape
    spec = tf.TensorSpec([length + frame_stack - 1, *shape], signature.steps.observation.dtype)
    return signature._replace(steps=signature.steps._replace(observation=spec))


def thin(unrolls: Unrolls, frame_stack: int) -> Unrolls:
    """Replaces observations [B, T+1, ..., k] by frames [B, T+k, ...], the oldest first."""
    if frame_stack == 1:
        return unrolls
    stacks = unrolls.steps.observation
    before = np.moveaxis(stacks[:, 0, ..., :-1], -1, 1)
    frames = np.concatenate([before, stacks[..., -1]], axis=1)
    return unrolls._replace(steps=unrolls.steps._replace(observation=frames))


def restack(frames: tf.Tensor, step_type: tf.Tensor, frame_stack: int) -> tf.Tensor:
    """The observations [B, T+1, ..., k] of frames [B, T+k, ...] and step types <int32>[B, T+1]."""
    if frame_stack == 1:
        return frames
    length = step_type.shape[1]
    starts = tf.cast(step_type == FIRST, tf.int32)
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
