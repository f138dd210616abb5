"""Unrolls of T transitions: consecutive ones are the stream of steps, whatever its episodes."""

import time

import numpy as np
import pytest
import tree
from scripted_unrolls import acted_at, state_at, step_at, unrolls_of

from tfdrl.experience.unroll_assembler import UnrollAssembler
from tfdrl.types import FIRST, LAST, MID, Unrolls


def stream(function, times, num_envs):
    """What came at these times, nest of [N, len(times), ...]."""
    return tree.map_structure(
        lambda *leaves: np.stack(leaves, 1), *[function(t, num_envs) for t in times]
    )


def joined(parts):
    return tree.map_structure(lambda *leaves: np.concatenate(leaves, 1), *parts)


def assert_same(left, right):
    tree.assert_same_structure(left, right)
    for a, b in zip(tree.flatten(left), tree.flatten(right)):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype


@pytest.mark.parametrize("begin", [0, 1, 3])
@pytest.mark.parametrize(("num_envs", "unroll_steps"), [(1, 1), (1, 5), (4, 1), (4, 7), (5, 20)])
def test_unrolls_without_the_shared_step_are_the_stream(num_envs, unroll_steps, begin):
    batches = unrolls_of(num_envs, unroll_steps, 6, begin)
    times = range(begin, begin + 6 * unroll_steps)
    shortened = [tree.map_structure(lambda leaf: leaf[:, :-1], u.steps) for u in batches]
    assert_same(joined(shortened), stream(step_at, times, num_envs))
    acted = joined([(u.action, u.info) for u in batches])
    assert_same(acted, stream(acted_at, times, num_envs))
    # What was left out above: step T of each is step 0 of the next, its reward included.
    for one, other in zip(batches, batches[1:]):
        last = tree.map_structure(lambda leaf: leaf[:, -1], one.steps)
        assert_same(last, tree.map_structure(lambda leaf: leaf[:, 0], other.steps))
    last = tree.map_structure(lambda leaf: leaf[:, -1], batches[-1].steps)
    assert_same(last, step_at(times[-1] + 1, num_envs))


@pytest.mark.parametrize(("unroll_steps", "overlap"), [(2, 1), (6, 1), (7, 3)])
def test_unrolls_that_share_their_last_transitions_with_the_next(unroll_steps, overlap):
    """Unroll i has the steps from i (T - overlap) on: every transition is in one, none is lost."""
    for number, u in enumerate(unrolls_of(4, unroll_steps, 5, overlap=overlap)):
        start = number * (unroll_steps - overlap)
        assert_same(u.steps, stream(step_at, range(start, start + unroll_steps + 1), 4))
        times = range(start, start + unroll_steps)
        assert_same((u.action, u.info), stream(acted_at, times, 4))


def test_all_are_of_full_length_and_pass_through_episode_ends():
    batches = unrolls_of(4, 7, 6)
    for u in batches:
        assert {leaf.shape[:2] for leaf in tree.flatten(u.steps)} == {(4, 8)}
        assert {leaf.shape[:2] for leaf in tree.flatten((u.action, u.info))} == {(4, 7)}
    kinds = np.stack([u.steps.step_type for u in batches])
    inside = kinds[..., 1:-1]
    assert (inside == LAST).any() and (inside == FIRST).any()
    # Somewhere an unroll begins with each kind of step, and ends with each.
    assert set(kinds[..., 0].flat) == set(kinds[..., -1].flat) == {FIRST, MID, LAST}


def test_the_policy_state_is_of_before_the_first_step():
    for number, u in enumerate(unrolls_of(3, 4, 5)):
        assert_same(u.policy_state, state_at(4 * number, 3))
        np.testing.assert_array_equal(u.steps.reward[:, 0], step_at(4 * number, 3).reward)


def test_version_and_time_are_of_each_unroll():
    start_secs = time.time()
    for number, u in enumerate(unrolls_of(3, 4, 5)):
        assert u.version.dtype == np.int64 and u.version.tolist() == [number] * 3
        assert u.time_secs.dtype == np.float64 and u.time_secs.shape == (3,)
        assert start_secs <= u.time_secs.min() and u.time_secs.max() <= time.time()


def test_nothing_is_shared_between_unrolls_or_with_what_came_in():
    num_envs, steps = 2, 3
    assembler, batches = UnrollAssembler(num_envs, steps), []
    scratch = tree.map_structure(np.copy, (step_at(0, 2), *acted_at(0, 2), step_at(1, 2)))
    for t in range(3 * steps):
        if assembler.is_at_start:
            assembler.begin(state_at(t, num_envs))
        action, info = acted_at(t, num_envs)
        arrived = (step_at(t, num_envs), action, info, step_at(t + 1, num_envs))
        # The same arrays every time, overwritten: as an environment with a buffer would do.
        for to, leaf in zip(tree.flatten(scratch), tree.flatten(arrived)):
            to[:] = leaf
        now, action, info, then = scratch
        found = assembler.add(now, action, then, info, version=0)
        if found is not None:
            batches.append(found)
    for left, right in zip(batches, unrolls_of(num_envs, steps, 3)):
        right = right._replace(version=left.version, time_secs=left.time_secs)
        assert_same(left, right)
    flat = [leaf for u in batches for leaf in tree.flatten(u)]
    for i, leaf in enumerate(flat):
        assert not any(np.shares_memory(leaf, other) for other in flat[i + 1 :])
        assert not any(np.shares_memory(leaf, other) for other in tree.flatten(scratch))


def test_arrays_are_contiguous_for_each_environment():
    """The writer sends one environment's row of each array as it lies in memory."""
    (u,) = unrolls_of(3, 4, 1)
    assert isinstance(u, Unrolls)
    assert all(leaf.flags.c_contiguous for leaf in tree.flatten(u))


def test_policies_without_state_or_info():
    assembler = UnrollAssembler(2, 1)
    assembler.begin(())
    u = assembler.add(step_at(0, 2), np.zeros(2), step_at(1, 2), (), version=3)
    assert u.policy_state == () and u.info == () and u.version.tolist() == [3, 3]
