"""Life-loss episodes as a script of events, without an emulator."""

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from tfdrl.environments.atari import AtariEnvironment
from tfdrl.environments.batched import step_types
from tfdrl.environments.life_loss import NO_OP, LifeLossEpisodes
from tfdrl.types import FIRST, LAST, MID


def play(game, lives_at_start=3):
    """Runs (first, terminated, truncated, lives) rows; returns a row of labels for each."""
    episodes = LifeLossEpisodes(num_envs=1)
    episodes.restart(np.array([lives_at_start]))
    labels = []
    for first, terminated, truncated, lives in game:
        resuming = bool(episodes.resuming[0])
        ep_first, ep_last, ep_terminated, repeated = episodes.relabel(
            np.array([first], bool),
            np.array([terminated], bool),
            np.array([truncated], bool),
            np.array([lives]),
        )
        step_type = int(step_types(ep_first, ep_last)[0])
        labels.append((step_type, bool(ep_terminated[0]), resuming, bool(repeated[0])))
    return labels


def test_a_lost_life_is_a_termination_and_the_next_step_resumes_with_a_no_op():
    assert play(
        [  # first, terminated, truncated, lives
            (0, 0, 0, 3),
            (0, 0, 0, 2),
            (0, 0, 0, 2),
            (0, 0, 0, 2),
        ]
    ) == [  # step type, terminated, no-op, repeated
        (MID, False, False, False),
        (LAST, True, False, False),
        (FIRST, False, True, False),
        (MID, False, False, False),
    ]


def test_the_last_life_ends_the_game_as_usual():
    assert play([(0, 1, 0, 0), (1, 0, 0, 3), (0, 0, 0, 3)], lives_at_start=1) == [
        (LAST, True, False, False),
        (FIRST, False, False, False),
        (MID, False, False, False),
    ]


def test_truncation_keeps_its_discount_also_when_a_life_is_lost_with_it():
    assert play([(0, 0, 1, 2), (1, 0, 0, 3)])[0] == (LAST, False, False, False)


def test_an_extra_life_ends_nothing():
    assert [row[0] for row in play([(0, 0, 0, 4), (0, 0, 0, 4)])] == [MID, MID]


def test_a_second_life_lost_in_the_no_op_goes_unseen():
    rows = play([(0, 0, 0, 2), (0, 0, 0, 1), (0, 0, 0, 1), (0, 0, 0, 0)])
    assert [row[0] for row in rows] == [LAST, FIRST, MID, LAST]


def test_the_game_ending_in_the_no_op_keeps_first_and_last_alternating():
    for terminated, truncated in ((1, 0), (0, 1)):
        assert play(
            [
                (0, 0, 0, 2),
                (0, terminated, truncated, 2),  # in the no-op
                (1, 0, 0, 3),  # the emulator has reset
                (0, 0, 0, 3),  # no-op in the new game
                (0, 0, 0, 3),
            ]
        ) == [
            (LAST, True, False, False),
            (FIRST, False, True, False),
            (LAST, bool(terminated), False, True),
            (FIRST, False, True, False),
            (MID, False, False, False),
        ]


def test_environments_are_independent():
    episodes = LifeLossEpisodes(num_envs=2)
    episodes.restart(np.array([3, 3]))
    none = np.zeros(2, bool)
    first, last, terminated, _ = episodes.relabel(none, none, none, np.array([3, 2]))
    np.testing.assert_array_equal(first, [False, False])
    np.testing.assert_array_equal(last, [False, True])
    np.testing.assert_array_equal(terminated, [False, True])
    np.testing.assert_array_equal(episodes.resuming, [False, True])


class ScriptedGame(VectorEnv):
    """One "game" that loses a life at its second step, scores 3 every step and keeps actions."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
    num_envs = 1
    single_observation_space = spaces.Box(0, 255, (2, 2), np.uint8)
    single_action_space = spaces.Discrete(4)

    def reset(self, *, seed=None, options=None):
        self.actions = []
        return np.zeros((1, 2, 2), np.uint8), self.info(lives=3)

    def step(self, actions):
        self.actions.append(int(actions[0]))
        no = np.zeros(1, bool)
        lives = 3 if len(self.actions) < 2 else 2
        return np.ones((1, 2, 2), np.uint8), np.array([3.0]), no, no, self.info(lives)

    def info(self, lives):
        return {"lives": np.array([lives]), "episode_frame_number": np.array([0])}


def test_the_resuming_step_is_a_no_op_whose_reward_is_not_learned_from():
    game = ScriptedGame()
    env = AtariEnvironment(
        game, seed=0, frame_stack=4, frames_per_step=4, clip_reward=None, life_loss=True
    )
    env.reset()
    steps = [env.step(np.array([2])) for _ in range(4)]
    assert [int(step.step_type[0]) for step in steps] == [MID, LAST, FIRST, MID]
    assert [float(step.reward[0]) for step in steps] == [3.0, 3.0, 0.0, 3.0]
    assert game.actions == [2, 2, NO_OP, 2]
