"""The assembler against a computation episode by episode, over many blocks."""

import time

import numpy as np
import pytest

from tfdrl.agents.q_policy import QInfo
from tfdrl.experience.transitions import (
    DISCOUNT,
    N_STEP_RETURN,
    TIME_SECS,
    VERSION,
    TransitionAssembler,
    age_secs,
)
from tfdrl.types import FIRST, LAST, MID, TimeSteps

GAMMA = 0.9


class Stream:
    """L + 1 time steps of N environments whose episodes end at random, and what was done.

    Observation (e, t) of environment e is 1000 e + t. The rewards and discounts of steps that
    belong to nothing (FIRST) are large, so that a leak shows.
    """

    def __init__(self, length, num_envs, seed):
        random = np.random.default_rng(seed)
        shape = (length + 1, num_envs)
        self.step_type = np.full(shape, MID, np.int32)
        self.discount = np.ones(shape, np.float32)
        for e in range(num_envs):
            t = 0
            while t <= length:
                self.step_type[t, e] = FIRST
                end = t + random.integers(1, 7)  # episodes of 1 to 6 steps
                if end <= length:
                    self.step_type[end, e] = LAST
                    self.discount[end, e] = random.integers(0, 2)
                t = end + 1
        self.reward = random.normal(size=shape).astype(np.float32)
        self.reward[self.step_type == FIRST] = 1e4
        self.action = random.integers(0, 5, shape).astype(np.int32)
        self.q_taken = random.normal(size=shape).astype(np.float32)
        self.max_q = random.normal(size=shape).astype(np.float32)
        self.length, self.num_envs = length, num_envs

    def observation(self, t):
        number = 1000.0 * np.arange(self.num_envs) + t
        return {"position": number.astype(np.float32), "pair": np.stack([number] * 2, 1)}

    def steps(self, t):
        return TimeSteps(self.step_type[t], self.reward[t], self.discount[t], self.observation(t))

    def feed(self, assembler):
        """The blocks that come of all steps; step t acted with parameters of version 10 t."""
        blocks = []
        for t in range(self.length):
            info = QInfo(self.q_taken[t], self.max_q[t])
            block = assembler.add(self.steps(t), self.action[t], self.steps(t + 1), info, 10 * t)
            blocks.append(block)
        return blocks

    def transition(self, t, e, n):
        """(m, return, discount without the last gamma, priority) of the transition from t."""
        total, m = 0.0, 0
        while m < n:
            total += GAMMA**m * float(self.reward[t + m + 1, e])
            m += 1
            if self.step_type[t + m, e] == LAST:
                break
        discount = GAMMA ** (m - 1) * float(self.discount[t + m, e])
        target = total + GAMMA * discount * float(self.max_q[t + m, e])
        return m, total, discount, abs(target - float(self.q_taken[t, e]))


def joined(blocks):
    """All blocks one after the other, as the writer appends them."""
    blocks = [block for block in blocks if block is not None]
    rows = {
        "position": [b.rows.observation["position"] for b in blocks],
        "pair": [b.rows.observation["pair"] for b in blocks],
        "action": [b.rows.action for b in blocks],
        "step": [b.rows.step for b in blocks],
        "length": [b.length_steps for b in blocks],
        "valid": [b.is_valid for b in blocks],
        "priority": [b.priority for b in blocks],
    }
    return {name: np.concatenate(parts) for name, parts in rows.items()}


@pytest.mark.parametrize("num_envs", [1, 3])
@pytest.mark.parametrize(("n", "block_steps"), [(1, 1), (1, 5), (3, 1), (3, 4), (5, 2), (3, 50)])
def test_every_transition(n, block_steps, num_envs):
    stream = Stream(113, num_envs, seed=n + block_steps)
    out = joined(stream.feed(TransitionAssembler(num_envs, n, GAMMA, block_steps)))

    rows = len(out["valid"])
    # All that is complete is handed out, in blocks.
    complete = (stream.length - n) // block_steps * block_steps
    assert rows == n + complete
    assert complete > 40
    assert not out["valid"][:n].any()
    found = 0
    for row in range(n, rows):
        t = row - n
        for e in range(num_envs):
            assert out["position"][row, e] == 1000 * e + row
            # The action at LAST is ignored: from LAST to FIRST there is no transition.
            assert out["valid"][row, e] == (stream.step_type[t, e] != LAST)
            if not out["valid"][row, e]:
                continue
            found += 1
            m, total, discount, priority = stream.transition(t, e, n)
            step = out["step"][row, e]
            assert out["length"][row, e] == m
            assert out["action"][row, e] == stream.action[t, e]
            np.testing.assert_allclose(step[N_STEP_RETURN], total, 1e-5, 1e-5)
            np.testing.assert_allclose(step[DISCOUNT], discount, 1e-5)
            np.testing.assert_allclose(out["priority"][row, e], priority, 1e-4, 1e-5)
            assert step[VERSION] == 10 * t
            # The references: s_t lies n rows back, s_{t+m} lies n - m back.
            assert out["position"][row - n, e] == 1000 * e + t
            np.testing.assert_array_equal(out["pair"][row - n + m, e], 1000 * e + t + m)
            # s_t to s_{t+m} is within one episode: no FIRST after the start, no LAST before m.
            assert not (stream.step_type[t + 1 : t + m + 1, e] == FIRST).any()
            assert not (stream.step_type[t : t + m, e] == LAST).any()
    assert found > 30 * num_envs


def test_ends_of_both_kinds_in_a_block():
    """n = 2, gamma 0.9; environment 0 terminates at t = 3, environment 1 is truncated there.

    t:       0      1    2    3     4      5
    type:    FIRST  MID  MID  LAST  FIRST  MID
    reward:         1    2    4     99     8
    """
    step_types, rewards = [FIRST, MID, MID, LAST, FIRST, MID], [0, 1, 2, 4, 99, 8]
    assembler = TransitionAssembler(2, 2, 0.9, 4)
    zeros, block = np.zeros(2, np.float32), None

    def steps(t):
        discount = np.array([0.0 if t == 3 else 1.0, 1.0], np.float32)
        observation = np.full(2, t, np.float32)
        return TimeSteps(np.full(2, step_types[t]), zeros + rewards[t], discount, observation)

    for t in range(5):
        assert block is None
        block = assembler.add(steps(t), zeros.astype(np.int32), steps(t + 1), (), 0)
    assert block is None
    block = assembler.add(steps(5), zeros.astype(np.int32), steps(5), (), 0)

    after_padding = slice(2, None)
    np.testing.assert_array_equal(
        block.is_valid[after_padding], [[True] * 2, [True] * 2, [True] * 2, [False] * 2]
    )
    np.testing.assert_array_equal(block.length_steps[2:5], [[2, 2], [2, 2], [1, 1]])
    step = block.rows.step[2:5]
    returns = [[1 + 0.9 * 2] * 2, [2 + 0.9 * 4] * 2, [4] * 2]
    np.testing.assert_allclose(step[..., N_STEP_RETURN], returns, rtol=1e-6)
    np.testing.assert_allclose(step[..., DISCOUNT], [[0.9, 0.9], [0, 0.9], [0, 1]], rtol=1e-6)
    assert (block.priority[2:] == 1).all()  # no Q-values were given


def test_blocks_do_not_change_later():
    """The writer may send a block after the assembler has gone on."""
    stream, assembler = Stream(40, 2, 0), TransitionAssembler(2, 3, GAMMA, 5)
    kept = []
    for t in range(stream.length):
        info = QInfo(stream.q_taken[t], stream.max_q[t])
        block = assembler.add(stream.steps(t), stream.action[t], stream.steps(t + 1), info, 0)
        if block is not None:
            kept.append((block, joined([block])))
    assert len(kept) == 7
    for block, then in kept:
        for name, value in joined([block]).items():
            np.testing.assert_array_equal(value, then[name])


def test_an_observation_with_another_number_of_leaves_is_refused():
    stream, assembler = Stream(5, 2, 0), TransitionAssembler(2, 1, GAMMA, 5)
    stream.feed(assembler)
    steps = stream.steps(0)
    fewer = steps._replace(observation={"pair": steps.observation["pair"]})
    with pytest.raises(ValueError, match="2 leaves, where those before had 3"):
        assembler.add(fewer, stream.action[0], stream.steps(1), (), 0)


def test_write_time_is_recent_whatever_the_clock_is_set_to(monkeypatch):
    stream = Stream(20, 1, 0)
    an_hour_ago = time.time() - 3600
    monkeypatch.setattr(time, "time", lambda: an_hour_ago)
    out = joined(stream.feed(TransitionAssembler(1, 1, GAMMA, 5)))
    monkeypatch.undo()
    written_secs = out["step"][1:, 0, TIME_SECS]
    assert age_secs(written_secs).max() < 5
    assert age_secs(written_secs + 3).max() == 0, "another machine's clock is a little ahead"
