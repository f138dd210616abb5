"""Frames stored once come back as the stacks they were."""

import numpy as np
import pytest
import tensorflow as tf

from tfdrl.environments.atari import FrameStack
from tfdrl.experience.frame_stacks import restack, thin, thin_signature
from tfdrl.types import FIRST, LAST, MID, TimeSteps, Unrolls

_B, _T, _SIZE = 5, 12, 6


def stacked(frame_stack, seed):
    """Unrolls out of the middle of runs with short episodes, as the central player stacks them."""
    random = np.random.default_rng(seed)
    stack, before = FrameStack(_B, frame_stack, _SIZE), np.full(_B, LAST)
    observations, step_types = [], []
    for _ in range(4 + _T + 1):
        ends = random.random(_B) < 0.3
        step_type = np.where(before == LAST, FIRST, np.where(ends, LAST, MID)).astype(np.int32)
        before = step_type
        frame = random.integers(1, 256, (_B, _SIZE, _SIZE), np.uint8)
        observations.append(stack.push(frame, step_type == FIRST).copy())
        step_types.append(step_type)
    steps = TimeSteps(
        step_type=np.stack(step_types[4:], 1),
        reward=np.zeros((_B, _T + 1), np.float32),
        discount=np.ones((_B, _T + 1), np.float32),
        observation=np.stack(observations[4:], 1),
    )
    return Unrolls(steps, (), (), (), np.zeros(_B, np.int64), np.zeros(_B))


@pytest.mark.parametrize("frame_stack", [1, 2, 4])
@pytest.mark.parametrize("seed", range(5))
def test_stacks_come_back(frame_stack, seed):
    unrolls = stacked(max(frame_stack, 2), seed)
    thinned = thin(unrolls, frame_stack)
    frames = thinned.steps.observation
    signature = unrolls._replace(
        steps=unrolls.steps._replace(
            observation=tf.TensorSpec(unrolls.steps.observation.shape[1:], tf.uint8)
        )
    )
    spec = thin_signature(signature, frame_stack).steps.observation
    assert (tuple(spec.shape), spec.dtype) == (frames.shape[1:], tf.uint8)
    if frame_stack > 1:
        assert frames.shape == (_B, _T + frame_stack, _SIZE, _SIZE)
        assert (unrolls.steps.step_type[:, 1:] == FIRST).any()
    found = restack(tf.constant(frames), tf.constant(unrolls.steps.step_type), frame_stack)
    np.testing.assert_array_equal(found, unrolls.steps.observation)
