"""Frames stored once come back as the stacks they were."""

import numpy as np
import pytest
import tensorflow as tf

from tfdrl.environments.atari import FrameStack
from tfdrl.environments.registry import atari_environment
from tfdrl.experience.frame_stacks import restack, thin, thin_signature
from tfdrl.types import FIRST, LAST, MID, TimeSteps, Unrolls, stack_starts

_B, _T, _SIZE = 5, 12, 6


def stacked(frame_stack, seed):
    """Unrolls out of the middle of runs with short episodes; after half of them the game goes on.

    A tenth of the frames is black.
    """
    random = np.random.default_rng(seed)
    stack, before = FrameStack(_B, frame_stack, _SIZE), np.full(_B, LAST)
    observations, step_types = [], []
    for _ in range(4 + _T + 1):
        ends = random.random(_B) < 0.3
        step_type = np.where(before == LAST, FIRST, np.where(ends, LAST, MID)).astype(np.int32)
        before = step_type
        frame = random.integers(0, 256, (_B, _SIZE, _SIZE), np.uint8)
        frame[random.random(_B) < 0.1] = 0
        is_new_game = (step_type == FIRST) & (random.random(_B) < 0.5)
        observations.append(stack.push(frame, is_new_game).copy())
        step_types.append(step_type)
    steps = TimeSteps(
        step_type=np.stack(step_types[4:], 1),
        reward=np.zeros((_B, _T + 1), np.float32),
        discount=np.ones((_B, _T + 1), np.float32),
        observation=np.stack(observations[4:], 1),
    )
    return Unrolls(steps, (), (), (), np.zeros(_B, np.int64), np.zeros(_B))


@pytest.mark.parametrize("max_episode_frames", [108_000, 302])  # cut in a no-op, sometimes
def test_stacks_of_a_game_with_lives_come_back(max_episode_frames):
    settings = {"id": "Breakout", "noop_max": 0, "max_episode_frames": max_episode_frames}
    environment = atari_environment(2, True, 0, **settings)
    random, history = np.random.default_rng(0), [environment.reset()]
    for _ in range(400):
        history.append(environment.step(random.integers(4, size=2)))
    environment.close()
    steps = TimeSteps(*(np.stack(leaves, 1) for leaves in zip(*history)))
    is_first = steps.step_type == FIRST
    assert (stack_starts(steps.step_type, steps.observation) != is_first).sum() >= 8
    for start in range(0, 380, 19):
        part = TimeSteps(*(leaf[:, start : start + 20] for leaf in steps))
        unrolls = Unrolls(part, (), (), (), np.zeros(2, np.int64), np.zeros(2))
        stored = tf.nest.map_structure(tf.constant, thin(unrolls, 4).steps.observation)
        np.testing.assert_array_equal(restack(stored, 4), part.observation)


@pytest.mark.parametrize("frame_stack", [1, 2, 4])
@pytest.mark.parametrize("seed", range(5))
def test_stacks_come_back(frame_stack, seed):
    unrolls = stacked(max(frame_stack, 2), seed)
    thinned = thin(unrolls, frame_stack)
    stored = thinned.steps.observation
    signature = unrolls._replace(
        steps=unrolls.steps._replace(
            observation=tf.TensorSpec(unrolls.steps.observation.shape[1:], tf.uint8)
        )
    )
    specs = thin_signature(signature, frame_stack).steps.observation
    for spec, leaf in zip(tf.nest.flatten(specs), tf.nest.flatten(stored)):
        assert (tuple(spec.shape), spec.dtype) == (leaf.shape[1:], leaf.dtype)
    if frame_stack > 1:
        assert stored.frames.shape == (_B, _T + frame_stack, _SIZE, _SIZE)
        is_first = unrolls.steps.step_type[:, 1:] == FIRST
        assert stored.starts[:, 1:].any() and (is_first & ~stored.starts[:, 1:]).any()
    found = restack(tf.nest.map_structure(tf.constant, stored), frame_stack)
    np.testing.assert_array_equal(found, unrolls.steps.observation)
