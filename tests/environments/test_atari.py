"""Atari preprocessing against Gymnasium's wrappers, and whole games against episodes."""

import gymnasium
import numpy as np
import pytest
from gymnasium.wrappers import AtariPreprocessing, FrameStackObservation

from tfdrl.environments.atari import FrameStack
from tfdrl.environments.registry import atari_environment
from tfdrl.types import FIRST, LAST, MID

ale_py = pytest.importorskip("ale_py")
gymnasium.register_envs(ale_py)


def reference(game_id, max_episode_frames=108_000):
    """The preprocessing by Gymnasium alone, one environment, channels first."""
    env = gymnasium.make(
        game_id,
        frameskip=1,
        repeat_action_probability=0.0,
        max_num_frames_per_episode=max_episode_frames,
    )
    return FrameStackObservation(AtariPreprocessing(env, noop_max=0), 4, padding_type="zero")


@pytest.mark.parametrize("backend", ["native", "gymnasium"])
@pytest.mark.parametrize(
    ("game", "steps", "max_episode_frames"),
    [("Pong", 250, 108_000), ("Breakout", 400, 108_000), ("Breakout", 80, 150)],
)
def test_equals_the_reference(backend, game, steps, max_episode_frames):
    env = atari_environment(
        2,
        training=False,
        seed=0,
        id=game,
        backend=backend,
        noop_max=0,
        max_episode_frames=max_episode_frames,
        threads=2,
    )
    references = [reference(f"ALE/{game}-v5", max_episode_frames) for _ in range(2)]
    ours = env.reset()
    expected = [ref.reset(seed=0)[0] for ref in references]
    rng, ends = np.random.default_rng(1), 0
    was_done = [False, False]
    for _ in range(steps):
        for i, observation in enumerate(expected):
            np.testing.assert_array_equal(ours.observation[i].transpose(2, 0, 1), observation)
        action = rng.integers(env.action_spec.num_values, size=2)
        ours = env.step(action)
        for i, ref in enumerate(references):
            if was_done[i]:
                expected[i], was_done[i] = ref.reset()[0], False
                row = (FIRST, 0.0, 1.0)
            else:
                expected[i], reward, terminated, truncated, _ = ref.step(action[i])
                was_done[i] = terminated or truncated
                ends += was_done[i]
                row = (LAST if was_done[i] else MID, reward, float(not terminated))
            assert (ours.step_type[i], ours.reward[i], ours.discount[i]) == row
    assert ends == len(env.take_episodes().returns)
    assert ends >= (0 if game == "Pong" else 2)


def test_specs_and_dtypes():
    with atari_environment(2, True, 0, id="ALE/Breakout-v5") as env:
        assert env.frames_per_step == 4 and env.num_envs == 2
        spec = env.observation_spec
        assert (spec.shape, spec.dtype, spec.minimum, spec.maximum) == (
            (84, 84, 4),
            np.uint8,
            0,
            255,
        )
        assert (env.action_spec.shape, env.action_spec.num_values) == ((), 4)
        for steps in (env.reset(), env.step(np.zeros(2, np.int32))):
            assert steps.observation.shape == (2, 84, 84, 4)
            assert steps.observation.dtype == np.uint8 and steps.observation.flags.c_contiguous
            assert steps.step_type.dtype == np.int32
            assert steps.reward.dtype == steps.discount.dtype == np.float32


def test_full_action_space():
    assert (
        atari_environment(1, True, 0, id="Pong", full_action_space=True).action_spec.maximum == 17
    )


def run(env, steps, seed=0):
    """`steps` random steps; the list of time steps with the reset's first."""
    rng = np.random.default_rng(seed)
    n = env.action_spec.num_values
    return [env.reset()] + [env.step(rng.integers(n, size=env.num_envs)) for _ in range(steps)]


def test_backends_agree_on_life_losses():
    settings = {"num_envs": 2, "training": True, "seed": 0, "id": "Breakout", "noop_max": 0}
    native = run(atari_environment(**settings), 250)
    python = run(atari_environment(**settings, backend="gymnasium"), 250)
    for ours, theirs in zip(native, python):
        for one, other in zip(ours, theirs):
            np.testing.assert_array_equal(one, other)
    assert sum((steps.step_type == LAST).sum() for steps in native) >= 4


def test_a_lost_life_ends_the_episode_and_neither_game_nor_stack():
    env = atari_environment(1, True, 0, id="Breakout", noop_max=0)
    history = run(env, 400)
    types = np.concatenate([steps.step_type for steps in history])
    np.testing.assert_array_equal(types[1:][types[:-1] == LAST], FIRST)
    np.testing.assert_array_equal(types[:-1][types[1:] == FIRST], LAST)
    games = env.take_episodes()
    lives = np.flatnonzero(types == LAST)
    assert len(lives) >= 5 * len(games.returns) > 0  # five lives a game
    for t in lives:
        assert history[t].discount[0] == 0.0 and history[t + 1].reward[0] == 0.0
        last, following = history[t].observation[0], history[t + 1].observation[0]
        stack_goes_on = np.array_equal(following[..., :3], last[..., 1:])
        stack_is_empty = not following[..., :3].any()
        assert stack_goes_on != stack_is_empty
    resets = [t for t in lives if not history[t + 1].observation[0][..., :3].any()]
    assert len(resets) == len(games.returns)


def test_take_episodes_reports_whole_games_in_raw_rewards():
    settings = {"num_envs": 1, "seed": 0, "id": "Breakout", "noop_max": 0}
    training = atari_environment(training=True, **settings)
    steps = run(training, 300)
    games = training.take_episodes()
    assert len(games.returns) == 1
    # In the first game every step but a FIRST one after a lost life moves the emulator by
    # four frames, and those, no-ops, do so too.
    end = next(
        t
        for t in range(1, 300)
        if steps[t].step_type[0] == LAST and not steps[t + 1].observation[0][..., :3].any()
    )
    assert 4 * (end - 1) < games.length_frames[0] <= 4 * end
    learned = sum(step.reward[0] for step in steps[: end + 1])
    assert games.returns[0] >= learned


def test_rewards_are_clipped_in_training_only():
    # Random play of Space Invaders earns 5 to 30 points an alien.
    settings = {"num_envs": 2, "seed": 0, "id": "SpaceInvaders", "noop_max": 0}
    training = run(atari_environment(training=True, **settings), 150)
    evaluation = run(atari_environment(training=False, **settings), 150)
    assert {float(r) for steps in training for r in steps.reward} == {0.0, 1.0}
    assert max(float(steps.reward.max()) for steps in evaluation) >= 5.0


def first_life_lost(env):
    for t, steps in enumerate(run(env, 100)):
        if steps.step_type[0] == LAST:
            return t
    raise AssertionError("no life was lost in 100 steps")


def test_game_cut_within_the_no_op_after_a_lost_life():
    settings = {"num_envs": 1, "training": True, "seed": 0, "id": "Breakout", "noop_max": 0}
    lost_at = first_life_lost(atari_environment(**settings))
    cut = atari_environment(**settings, max_episode_frames=4 * lost_at + 2)
    history = run(cut, lost_at + 5)
    rows = [(int(steps.step_type[0]), float(steps.discount[0])) for steps in history[lost_at:]]
    #               life lost    final frame   truncation   new game
    assert rows == [(LAST, 0.0), (FIRST, 1.0), (LAST, 1.0), (FIRST, 1.0), (MID, 1.0), (MID, 1.0)]
    final, repeated, new = (history[lost_at + k].observation[0] for k in (1, 2, 3))
    np.testing.assert_array_equal(repeated[..., -1], final[..., -1])
    np.testing.assert_array_equal(repeated[..., :-1], final[..., 1:])
    assert not new[..., :-1].any() and new[..., -1].any()  # a new stack
    np.testing.assert_array_equal(cut.take_episodes().length_frames, [4 * lost_at + 2])


@pytest.mark.parametrize("backend", ["native", "gymnasium"])
def test_frame_cap_is_a_truncation(backend):
    env = atari_environment(
        1, False, 0, id="Pong", backend=backend, noop_max=0, max_episode_frames=40
    )
    history = run(env, 11)
    assert [int(steps.step_type[0]) for steps in history[9:]] == [MID, LAST, FIRST]
    assert history[10].discount[0] == 1.0
    assert not history[11].observation[..., :3].any() and history[11].observation[..., 3].any()
    np.testing.assert_array_equal(env.take_episodes().length_frames, [40])


@pytest.mark.parametrize("backend", ["native", "gymnasium"])
def test_seed_decides_and_each_environment_has_its_own(backend):
    def play(seed):
        env = atari_environment(
            3, True, seed, id="Breakout", backend=backend, repeat_action_probability=0.25
        )
        fire = np.ones(3, np.int32)  # no-ops and sticky actions are the only chance
        return [env.reset()] + [env.step((fire + t) % 4) for t in range(40)]

    first, again, other = play(5), play(5), play(6)
    for one, two in zip(first, again):
        np.testing.assert_array_equal(one.observation, two.observation)
    assert not np.array_equal(first[-1].observation, other[-1].observation)
    assert not np.array_equal(first[-1].observation[0], first[-1].observation[1])


@pytest.mark.parametrize(("backend", "fewest"), [("native", 0), ("gymnasium", 1)])
def test_number_of_no_ops(backend, fewest):
    # Four frames of one step after a reset; the emulator's own count has the no-ops besides.
    env = atari_environment(8, False, 0, id="Pong", backend=backend, noop_max=3)
    lengths = set()
    env.reset()
    for _ in range(12):
        env.reset()
        lengths |= set(env._emulators.step(np.zeros(8, np.int64))[4]["episode_frame_number"])
    assert {int(length) - 4 for length in lengths} == set(range(fewest, 3 + 1))


@pytest.mark.parametrize("frame_stack", [1, 2, 4, 8])
def test_frame_stack(frame_stack):
    stack = FrameStack(num_envs=2, frame_stack=frame_stack, screen_size=3)
    frames = np.random.default_rng(0).integers(1, 256, (12, 2, 3, 3)).astype(np.uint8)
    outputs = []
    for t, frame in enumerate(frames):
        outputs.append(stack.push(frame, first=np.array([t == 0, t in (0, 7)])))
    for t, output in enumerate(outputs):  # checked after all pushes: nothing is overwritten
        for i in range(2):
            start = 7 if i == 1 and t >= 7 else 0
            for channel in range(frame_stack):
                source = t - (frame_stack - 1 - channel)
                expected = frames[source, i] if source >= start else np.zeros((3, 3))
                np.testing.assert_array_equal(output[i, :, :, channel], expected)
