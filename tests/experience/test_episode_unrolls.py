"""Unrolls within one episode: against a plain list of each environment's steps, for all lengths."""

import functools

import numpy as np
import pytest
import tree
from scripted_unrolls import acted_at, state_at, step_at

from tfdrl.environments.atari import FrameStack
from tfdrl.experience import frame_stacks
from tfdrl.experience.episode_unrolls import EpisodeUnrollCollector
from tfdrl.experience.unroll_queue import UnrollQueue
from tfdrl.types import FIRST, LAST, MID, TimeSteps

_ENVS = 12  # environment e has episodes of 1 + e transitions: t % (2 + e) == 0 is FIRST
_STEPS = 40


def collected(trained, overlap):
    """[(time, unrolls)], with the policy's info at their last step."""
    collector, found = EpisodeUnrollCollector(overlap + trained, overlap), []
    collector.start(step_at(0, _ENVS), state_at(0, _ENVS), version=0)
    for t in range(_STEPS):
        then, state = step_at(t + 1, _ENVS), state_at(t + 1, _ENVS)
        complete = collector.add(*acted_at(t, _ENVS), then, state, version=t + 1)
        if complete is not None:
            found.append((t + 1, complete.with_next_info(acted_at(t + 1, _ENVS)[1])))
    return found


def ends(e, trained):
    """(start of the episode, steps from there to the end of an unroll), in the order of time."""
    length = 1 + e
    for start in range(0, _STEPS, 2 + e):
        for end in sorted({*range(trained, length, trained), length}):
            if start + end <= _STEPS:
                yield start, end


@pytest.mark.parametrize("overlap", range(9))
@pytest.mark.parametrize("trained", range(1, 9))
def test_every_unroll_is_the_end_of_what_its_episode_has_so_far(trained, overlap):
    """Full length where the episode is long enough; else LAST steps of zeros come before."""
    length, found = overlap + trained, {e: [] for e in range(_ENVS)}
    for time, unrolls in collected(trained, overlap):
        for row, e in enumerate(unrolls.environments):
            over_time = (unrolls.steps, unrolls.acted)
            steps, acted = tree.map_structure(lambda leaf: leaf[:, row], over_time)  # noqa: B023
            by_row = (unrolls.policy_state, unrolls.next_info)
            state, info = tree.map_structure(lambda leaf: leaf[row], by_row)  # noqa: B023
            found[e].append((time, steps, acted, state, info))
    for e in range(_ENVS):
        expected = list(ends(e, trained))
        assert [time for time, *_ in found[e]] == [start + end for start, end in expected]
        for (start, end), (_, *unroll) in zip(expected, found[e]):
            check(e, start, end, length, *unroll)


def check(e, start, end, length, steps, acted, state, info):
    padding, first = max(length - end, 0), start + end - length
    after = lambda nest: tree.map_structure(lambda leaf: leaf[padding:], nest)  # noqa: E731
    same(after(steps), stream(step_at, e, slice(first + padding, start + end + 1)))
    same(after(acted), stream(acted_at, e, slice(first + padding, start + end)))
    assert (steps.step_type[:padding] == LAST).all()
    rest = steps._replace(step_type=np.zeros(1))
    assert not any(leaf[:padding].any() for leaf in tree.flatten((rest, acted)))
    if padding:
        assert not any(leaf.any() for leaf in tree.flatten(state))
    else:
        same(state, stream(state_at, e, first))
    same(info, stream(acted_at, e, start + end)[1])


def same(left, right):
    for a, b in zip(tree.flatten(left), tree.flatten(right), strict=True):
        assert a.dtype == b.dtype and np.array_equal(a, b)


def stream(function, e, times):
    """What came at these times in environment e."""
    return tree.map_structure(lambda leaf: leaf[times, e], everything(function))


@functools.cache
def everything(function):
    """[time, environment, ...]"""
    parts = [function(t, _ENVS) for t in range(_STEPS + 1)]
    return tree.map_structure(lambda *leaves: np.stack(leaves), *parts)


@pytest.mark.parametrize(("trained", "overlap"), [(3, 0), (3, 2), (5, 9)])
def test_the_version_is_that_of_the_first_trained_step(trained, overlap):
    for time, unrolls in collected(trained, overlap):
        assert unrolls.version == max(time - trained, 0)


def test_what_is_returned_is_not_written_to_again():
    found = collected(3, 2)
    kept = [tree.map_structure(np.copy, unrolls[:3]) for _, unrolls in found]
    again = collected(3, 2)
    for before, (_, unrolls), (_, other) in zip(kept, found, again):
        tree.map_structure(np.testing.assert_array_equal, before, unrolls[:3])
        pairs = zip(tree.flatten(unrolls[:3]), tree.flatten(other[:3]))
        assert not any(np.shares_memory(a, b) for a, b in pairs)


@pytest.mark.parametrize("k", [2, 4])
def test_stacks_are_made_again_of_single_frames(k):
    """Also after a lost life: an episode begins, and its first stack shows frames of the last."""
    random, envs, size = np.random.default_rng(0), 5, 3
    stack, collector = FrameStack(envs, k, size), EpisodeUnrollCollector(7, 3, k)
    queue, kinds, shown, count = UnrollQueue(10_000), np.full(envs, LAST), [], 0
    depth = np.zeros(envs, np.uint8)
    for t in range(120):
        kinds = np.where(kinds == LAST, FIRST, np.where(random.random(envs) < 0.25, LAST, MID))
        starts = (kinds == FIRST) & ((random.random(envs) < 0.5) | (t == 0))
        frames = random.integers(1, 256, (envs, size, size), np.uint8)
        depth = frame_stacks.next_depth(depth, starts, k)
        shown.append(stack.push(frames, starts))
        names = np.float32(envs * t + np.arange(envs) + 1)  # by which a step's stack is found again
        observation = frame_stacks.Frames(frames, depth)
        steps = TimeSteps(kinds.astype(np.int32), names, np.ones(envs, np.float32), observation)
        if t == 0:
            collector.start(steps, (), 0)
            continue
        complete = collector.add(np.zeros(envs, np.int32), (), steps, (), 0)
        if complete is not None:
            queue.put(complete)
            count += complete.rows
    unrolls = queue.take(count, 1.0)
    stored = unrolls.steps.observation
    assert stored.frames.shape == (count, 7 + k, size, size)
    again = frame_stacks.restack(stored).numpy()
    names = unrolls.steps.reward.astype(int) - 1
    real = names >= 0
    np.testing.assert_array_equal(again[real], np.concatenate(shown)[names[real]])
    assert not again[~real].any() and (~real).any()
    older = again[..., :-1].reshape(count, 8, -1).any(axis=-1)
    began = (unrolls.steps.step_type == FIRST) & real
    assert (began & older)[:, 1:].any() and (began & ~older)[:, 1:].any()
    hidden = stored.frames[:, : k - 1][~real[:, 0] & ~real[:, k]]  # what no stack shows is not kept
    assert hidden.size and not hidden.any()
