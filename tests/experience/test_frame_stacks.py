"""Frames stored once come back as the stacks they were."""

import numpy as np
import pytest
import tensorflow as tf

from tests.support.stacked_games import StackedGames, played
from tfdrl.environments.registry import atari_environment
from tfdrl.errors import ConfigurationError
from tfdrl.experience.frame_stacks import (
    FramePairs,
    Frames,
    SingleFrames,
    restack,
    thin,
    thin_signature,
)
from tfdrl.types import FIRST, TimeSteps, Unrolls, stack_starts

_B, _T = 5, 12


def over_time(steps):
    """TimeSteps of [B, T+1, ...]."""
    return TimeSteps(*(np.stack(leaves, 1) for leaves in zip(*steps)))


def single(environment, steps):
    """`Frames` of the steps, after k-1 frames of which nothing is to be seen."""
    singles = SingleFrames(environment)
    frames, depth = zip(*(singles(step).observation for step in steps))
    k = environment.frame_stack
    before = np.full((environment.num_envs, k - 1, *frames[0].shape[1:]), 77, frames[0].dtype)
    return Frames(np.concatenate([before, np.stack(frames, 1)], axis=1), np.stack(depth, axis=1))


def unrolls_of(steps):
    batch = len(steps.step_type)
    return Unrolls(steps, (), (), (), np.zeros(batch, np.int64), np.zeros(batch))


@pytest.mark.parametrize("max_episode_frames", [108_000, 302])  # cut in a no-op, sometimes
def test_stacks_of_a_game_with_lives_come_back(max_episode_frames):
    settings = {"id": "Breakout", "noop_max": 0, "max_episode_frames": max_episode_frames}
    with atari_environment(2, True, 0, **settings) as environment:
        random, history = np.random.default_rng(0), [environment.reset()]
        for _ in range(400):
            history.append(environment.step(random.integers(4, size=2)))
        steps = over_time(history)
        found = restack(single(environment, history))
    is_first = steps.step_type == FIRST
    assert (stack_starts(steps.step_type, steps.observation) != is_first).sum() >= 8
    np.testing.assert_array_equal(found, steps.observation)
    for start in range(0, 380, 19):
        part = unrolls_of(TimeSteps(*(leaf[:, start : start + 20] for leaf in steps)))
        np.testing.assert_array_equal(
            restack(thin(part, 4).steps.observation), part.steps.observation
        )


@pytest.mark.parametrize("frame_stack", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("seed", range(2))
def test_single_frames_come_back_as_stacks(frame_stack, seed):
    games = StackedGames(_B, frame_stack, seed)
    history = played(games, 40)
    steps = over_time(history)
    if frame_stack > 1:
        is_first = steps.step_type == FIRST
        starts = stack_starts(steps.step_type, steps.observation)
        assert starts[:, 1:].any() and (is_first & ~starts)[:, 1:].any()
        np.testing.assert_array_equal(restack(single(games, history)), steps.observation)
    else:
        singles = SingleFrames(games)
        assert all(singles(step) is step for step in history)
        assert restack(steps.observation) is steps.observation


def test_stacks_of_floats_come_back():
    steps = over_time(played(StackedGames(_B), 20))
    steps = steps._replace(observation=np.where(steps.observation, steps.observation / 7.0, 0.0))
    stored = thin(unrolls_of(steps), 4).steps.observation
    stored.frames[stored.frames == 0] = np.nan  # what is not shown may be anything
    found = restack(stored).numpy()
    np.testing.assert_array_equal(found[~np.isnan(found)], steps.observation[~np.isnan(found)])
    assert (steps.observation[np.isnan(found)] == 0).all()


@pytest.mark.parametrize("frame_stack", [1, 2, 4])
def test_unrolls_out_of_the_middle_of_games(frame_stack):
    games = StackedGames(_B, max(frame_stack, 2), seed=3)
    unrolls = unrolls_of(over_time(played(games, 4 + _T)[4:]))
    stored = thin(unrolls, frame_stack).steps.observation
    signature = unrolls._replace(
        steps=unrolls.steps._replace(
            observation=tf.TensorSpec(unrolls.steps.observation.shape[1:], tf.uint8)
        )
    )
    specs = thin_signature(signature, frame_stack).steps.observation
    for spec, leaf in zip(tf.nest.flatten(specs), tf.nest.flatten(stored)):
        assert (tuple(spec.shape), spec.dtype) == (leaf.shape[1:], leaf.dtype)
    np.testing.assert_array_equal(restack(stored), unrolls.steps.observation)


@pytest.mark.parametrize("n", [1, 3])
def test_pairs_of_a_window(n):
    games, k = StackedGames(_B, seed=1), 4
    history = played(games, 40)
    frames, depth = single(games, history)
    stacks = over_time(history).observation
    random, rows = np.random.default_rng(0), np.arange(_B)
    for t in range(40 - n):
        m = random.integers(1, n + 1, _B).astype(np.int32)
        pairs = FramePairs(frames[:, t : t + n + k], depth[:, t : t + n + 1], tf.constant(m))
        expected = np.stack([stacks[:, t], stacks[rows, t + m]], axis=1)
        np.testing.assert_array_equal(restack(pairs), expected)


def test_stacks_that_are_not_the_last_frames_are_refused():
    games = StackedGames(_B)
    singles, steps = SingleFrames(games), played(games, 3)
    for step in steps:
        singles(step)
    with pytest.raises(ConfigurationError, match=r"StackedGames.*frame_stack = 1"):
        singles(steps[1])  # out of order
    padded = steps[0]._replace(observation=np.repeat(steps[0].observation[..., -1:], 4, axis=-1))
    with pytest.raises(ConfigurationError, match="zeros before a game"):
        SingleFrames(games)(padded)  # with the first frame, not with zeros
