"""Steps, actions and states whose numbers name their time and environment, and their unrolls."""

import numpy as np

from tfdrl.experience.unroll_assembler import UnrollAssembler
from tfdrl.types import FIRST, LAST, MID, TimeSteps


def step_at(t, num_envs):
    """Environment e has episodes of 2 + e steps; every number names its time and environment."""
    e = np.arange(num_envs)
    phase = t % (2 + e)
    step_type = np.where(phase == 0, FIRST, np.where(phase == 1 + e, LAST, MID))
    return TimeSteps(
        step_type.astype(np.int32),
        (100.0 * e + t).astype(np.float32),
        np.where(step_type == LAST, e % 2, 1).astype(np.float32),
        {"a": np.stack([e * 0 + t, e], 1).astype(np.uint8), "b": (100 * e + t, -1.0 * e)},
    )


def acted_at(t, num_envs):
    """(action, info)"""
    e = np.arange(num_envs)
    action = {"x": (1000 * e + t).astype(np.int32), "y": np.stack([e + t, e - t], 1) / 7}
    return action, {"logits": np.stack([10.0 * e + t, e, e], 1)}


def state_at(t, num_envs):
    """Of the policy before step t; lists, as Keras' cells have them."""
    return [np.full((num_envs, 2), t, np.float32), np.arange(num_envs) + 0.5 * t]


def unrolls_of(num_envs, unroll_steps, count, begin=0, overlap=0):
    """`count` batches of consecutive unrolls of versions 0, 1, ..., as an actor makes them."""
    assembler, batches = UnrollAssembler(num_envs, unroll_steps, overlap), []
    for t in range(begin, begin + count * (unroll_steps - overlap) + overlap):
        if assembler.is_at_start:
            assembler.begin(state_at(t, num_envs))
        action, info = acted_at(t, num_envs)
        now, then = step_at(t, num_envs), step_at(t + 1, num_envs)
        found = assembler.add(now, action, then, info, version=len(batches))
        is_due = t >= begin + overlap and (t - begin + 1 - overlap) % (unroll_steps - overlap) == 0
        assert (found is not None) == is_due
        assert assembler.is_at_start == (found is not None)
        if found is not None:
            batches.append(found)
    return batches
