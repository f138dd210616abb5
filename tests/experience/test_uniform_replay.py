"""The uniform replay against a store that keeps every observation whole."""

import json

import numpy as np
import pytest
import tree

from tfdrl.errors import ConfigurationError, TfdrlError
from tfdrl.experience.frame_stacks import FramePairs, restack
from tfdrl.experience.uniform_replay import UniformReplay
from tfdrl.types import FIRST, LAST, MID, TimeSteps

GAMMA = 0.9


class Games:
    """N environments that show stacks of k random frames, zero where a game has had fewer.

    Episodes end with the game (terminated or truncated), or with a lost life, after which the
    stack goes on: FIRST then shows the frames before it too.
    """

    def __init__(self, num_envs, stack, seed, frame=(3, 2)):
        self.random = np.random.default_rng(seed)
        self.num_envs, self.stack, self.frame = num_envs, stack, frame
        self.is_game_over = np.ones(num_envs, bool)
        self.frames = np.zeros((num_envs, *frame, stack), np.uint8)
        self.now = self._steps(np.full(num_envs, FIRST), np.ones(num_envs))

    def _steps(self, step_type, discount):
        self.frames = np.concatenate([self.frames[..., 1:], self._new_frames()], axis=-1)
        self.frames[self.is_game_over, ..., :-1] = 0
        reward = self.random.normal(size=self.num_envs).astype(np.float32)
        return TimeSteps(
            step_type.astype(np.int32), reward, discount.astype(np.float32), self.frames.copy()
        )

    def _new_frames(self):
        shape = (self.num_envs, *self.frame, 1)
        dark = self.random.random(self.num_envs) < 0.1  # a black frame is no padding
        frames = self.random.integers(0, 256, shape).astype(np.uint8)
        frames[dark] = 0
        return frames

    def step(self):
        """(time steps, action, next time steps)"""
        now, random = self.now, self.random
        was_last = now.step_type == LAST
        kind = random.random(self.num_envs)
        last = (kind < 0.2) & ~was_last
        self.is_game_over &= was_last  # the game that ended begins anew at FIRST
        discount = np.where(last & (kind < 0.15), 0.0, 1.0)
        step_type = np.where(was_last, FIRST, np.where(last, LAST, MID))
        self.now = self._steps(step_type, discount)
        self.is_game_over = last & (kind > 0.07)  # else a life: the stack goes on
        return now, random.integers(0, 4, self.num_envs).astype(np.int32), self.now


class WholeStore:
    """Keeps everything as it came: what the replay must agree with."""

    def __init__(self):
        self.observation, self.action, self.reward, self.discount = [], [], [], []
        self.is_last, self.ends = [], []

    def add(self, now, action, then):
        self.observation.append(now.observation)
        self.action.append(action)
        self.reward.append(then.reward)
        self.discount.append(then.discount)
        self.is_last.append(now.step_type == LAST)
        self.ends.append(then.step_type == LAST)

    def transition(self, t, e, n):
        """(s_t, a_t, return, discount without the last gamma, s_{t+m})"""
        total = 0.0
        for m in range(1, n + 1):
            total += GAMMA ** (m - 1) * float(self.reward[t + m - 1][e])
            if self.ends[t + m - 1][e]:
                break
        discount = GAMMA ** (m - 1) * float(self.discount[t + m - 1][e])
        return (
            self.observation[t][e],
            self.action[t][e],
            total,
            discount,
            self.observation[t + m][e],
        )


def fill(replay, games, store, steps):
    for _ in range(steps):
        step = games.step()
        replay.add(*step)
        store.add(*step)


def with_observations(batch):
    """Transitions whose observations are stacks, where they are frames of both."""
    if not isinstance(batch.observation, FramePairs):
        return batch
    first, second = np.moveaxis(restack(batch.observation).numpy(), 1, 0)
    return batch._replace(observation=first, next_observation=second)


def check(replay, store, t, e, n, oldest):
    """The replay's transitions at rows t (from the oldest) are the store's."""
    batch = with_observations(replay.transitions(t, e))
    for k in range(len(t)):
        s, a, total, discount, after = store.transition(oldest + t[k], e[k], n)
        np.testing.assert_array_equal(batch.observation[k], s)
        np.testing.assert_array_equal(batch.next_observation[k], after)
        assert batch.action[k] == a
        np.testing.assert_allclose(batch.n_step_return[k], total, 1e-5, 1e-5)
        np.testing.assert_allclose(batch.discount[k], discount, 1e-6)
    assert batch.observation.dtype == store.observation[0].dtype


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("stack", [1, 4])
@pytest.mark.parametrize("steps", [30, 60, 155])
def test_samples_are_what_was_stored(steps, stack, n):
    """Before it is full (30), just full (60), and after two rounds and a half (155)."""
    games, store = Games(3, 4, seed=stack + n), WholeStore()
    replay = UniformReplay(60 * 3, 3, n, GAMMA, frame_stack=stack)
    fill(replay, games, store, steps)
    assert replay.size_steps == 3 * min(steps, 60)
    t, e = replay.sample_indices(400)
    oldest = max(steps - 60, 0)
    check(replay, store, t, e, n, oldest)
    assert not any(store.is_last[oldest + row][env] for row, env in zip(t, e))


@pytest.mark.parametrize("stack", [1, 4])
def test_every_row_that_can_be_is_sampled_evenly(stack):
    games, store, n = Games(2, 4, seed=5), WholeStore(), 2
    replay = UniformReplay(30 * 2, 2, n, GAMMA, frame_stack=stack)
    fill(replay, games, store, 47)
    t, e = replay.sample_indices(40_000)
    counts = np.zeros((30, 2), int)
    np.add.at(counts, (t, e), 1)
    allowed = ~np.array(store.is_last[17:])
    allowed[30 - n :] = False  # their windows are not complete
    allowed[: stack - 1] = False  # their stacks' first frames are overwritten
    assert (counts[~allowed] == 0).all()
    expected = 40_000 / allowed.sum()
    chi_square = ((counts[allowed] - expected) ** 2 / expected).sum()
    degrees = allowed.sum() - 1
    assert chi_square < degrees + 4 * np.sqrt(2 * degrees)
    assert degrees > 35


def test_the_stacks_of_life_loss_and_of_a_new_game_differ():
    """The synthetic games do what the other tests rely on."""
    games, store = Games(3, 4, seed=1), WholeStore()
    fill(UniformReplay(900, 3, 1, GAMMA), games, store, 200)
    after_last = [
        store.observation[t + 1][e][..., :-1].any()
        for t in range(199)
        for e in range(3)
        if store.is_last[t][e]
    ]
    assert 10 < sum(after_last) < len(after_last) - 10


def test_same_seed_same_samples():
    samples = []
    for seed in (1, 1, 2):
        replay = UniformReplay(150, 3, 1, GAMMA, seed=seed)
        fill(replay, Games(3, 1, seed=0), WholeStore(), 50)
        samples.append(replay.sample(32).n_step_return)
    np.testing.assert_array_equal(samples[0], samples[1])
    assert (samples[0] != samples[2]).any()


@pytest.mark.parametrize("stack", [1, 4])
@pytest.mark.parametrize("steps", [20, 75])
def test_restore_continues_identically(tmp_path, steps, stack):
    def empty(seed):
        return UniformReplay(60 * 3, 3, 3, GAMMA, frame_stack=stack, seed=seed)

    games, store, replay = Games(3, 4, seed=2), WholeStore(), empty(7)
    fill(replay, games, store, steps)
    replay.truncate(games.now, np.zeros(3, np.int32))
    replay.sample(5)
    replay.save(tmp_path / "replay")
    state = json.loads(json.dumps(replay.state()))

    other = empty(99)
    other.restore(tmp_path / "replay", state, games.now.observation, np.zeros(3, np.int32))
    assert other.size_steps == replay.size_steps
    more = Games(3, 4, seed=3)
    for each in (replay, other):
        each.forget_previous()
    for _ in range(30):
        step = more.step()
        for each in (replay, other):
            each.add(*step)
        for left, right in zip(*(tree.flatten(each.sample(16)) for each in (replay, other))):
            np.testing.assert_array_equal(left, right)


def test_restore_of_another_size_is_refused(tmp_path):
    games, replay = Games(3, 1, seed=2), UniformReplay(180, 3, 1, GAMMA)
    fill(replay, games, WholeStore(), 70)
    replay.save(tmp_path / "replay")
    other = UniformReplay(240, 3, 1, GAMMA)
    with pytest.raises(TfdrlError, match="does not fit"):
        other.restore(
            *(tmp_path / "replay", replay.state(), games.now.observation, np.zeros(3, np.int32))
        )


def test_truncate_cuts_the_running_episodes():
    """The bootstrap is from the observation at the cut, with its discount; nothing crosses it."""
    games, store = Games(2, 4, seed=11), WholeStore()
    replay = UniformReplay(200, 2, 3, GAMMA, frame_stack=4)
    fill(replay, games, store, 12)
    now = games.now
    replay.truncate(now, np.zeros(2, np.int32))
    store.ends[-1] = np.ones(2, bool)
    store.add(TimeSteps(np.full(2, LAST), *now[1:]), np.zeros(2, np.int32), now)
    replay.forget_previous()
    anew = Games(2, 4, seed=12)
    fill(replay, anew, store, 12)
    t, e = replay.sample_indices(400)
    check(replay, store, t, e, 3, oldest=0)
    assert {11, 13} <= set(t.tolist()) and 12 not in t
    cut = with_observations(replay.transitions(np.array([11, 11]), np.array([0, 1])))
    np.testing.assert_array_equal(cut.next_observation, now.observation)
    np.testing.assert_array_equal(cut.n_step_return, now.reward)
    np.testing.assert_array_equal(cut.discount, now.discount)


def test_observations_of_many_parts():
    replay = UniformReplay(40, 2, 1, GAMMA)

    def steps(t, kind=MID):
        observation = {"a": np.full((2, 3), t, np.float32), "b": (np.arange(2) + 10 * t,)}
        one = np.ones(2, np.float32)
        return TimeSteps(np.full(2, kind), one * t, one, observation)

    for t in range(10):
        replay.add(steps(t), np.array([t, -t], np.int32), steps(t + 1))
    batch = replay.sample(64)
    t = batch.n_step_return - 1
    np.testing.assert_array_equal(batch.observation["a"], np.tile(t[:, None], 3))
    np.testing.assert_array_equal(batch.next_observation["b"][0] // 10, t + 1)
    env = batch.observation["b"][0] % 10
    np.testing.assert_array_equal(batch.action, np.where(env == 0, t, -t))


@pytest.mark.parametrize(("capacity", "n", "stack"), [(12, 5, 1), (15, 2, 4), (2, 1, 1)])
def test_too_small_a_capacity(capacity, n, stack):
    with pytest.raises(ConfigurationError, match=f"needs {(n + stack + 1) * 3} steps"):
        UniformReplay(capacity, 3, n, GAMMA, frame_stack=stack)
    UniformReplay((n + stack + 1) * 3, 3, n, GAMMA, frame_stack=stack)


def test_the_smallest_replay_samples():
    games, store, n, stack = Games(3, 4, seed=4), WholeStore(), 3, 4
    replay = UniformReplay((n + stack + 1) * 3, 3, n, GAMMA, frame_stack=stack)
    fill(replay, games, store, 57)
    t, e = replay.sample_indices(50)
    check(replay, store, t, e, n, oldest=57 - (n + stack + 1))


def test_stacks_of_another_depth():
    replay = UniformReplay(100, 2, 1, GAMMA, frame_stack=3)
    with pytest.raises(ConfigurationError, match="frame_stack = 3"):
        replay.add(*Games(2, 4, seed=0).step())


def test_stacks_that_repeat_a_games_first_frame_cannot_be_rebuilt():
    """Gymnasium's FrameStackObservation does so unless told otherwise."""
    games, replay = Games(2, 3, seed=0), UniformReplay(100, 2, 1, GAMMA, frame_stack=3)
    now, action, then = games.step()
    repeated = np.repeat(now.observation[..., -1:], 3, axis=-1)
    with pytest.raises(ConfigurationError, match="set frame_stack = 1"):
        replay.add(now._replace(observation=repeated), action, then)
