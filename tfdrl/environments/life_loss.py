"""The loss of a life as the end of an episode, without touching the game."""

from __future__ import annotations

import numpy as np

#: The action that does nothing in every Atari game.
NO_OP = 0


class LifeLossEpisodes:
    """Relabels the steps of N whole games so that a lost life terminates an episode.

    (Mnih et al. 2015, Methods, "Training details": "we also used the life counter to mark the
    end of an episode during training".) The step that loses a life is LAST with discount 0.
    The next step is FIRST and goes on with the same game: neither emulator nor frame stack is
    reset. The emulators of a batch step together, so the one that resumes cannot stand still
    meanwhile; it takes one no-op step (4 frames), which is what the FIRST step shows. Its
    reward counts for the game's return only.

    What may happen within that no-op step: another life lost goes unseen. If the game ends, the
    FIRST step shows the game's final observation, then a LAST step with the game's discount
    repeats its frame while the emulator resets, and one more no-op leads to the next game's FIRST
    step.
    """

    def __init__(self, num_envs: int):
        self._num_envs = num_envs
        self.restart(np.zeros(num_envs, np.int64))

    def restart(self, lives: np.ndarray) -> None:
        """New games everywhere; lives [N] at their start."""
        self._lives = np.array(lives)
        #: <bool>[N] environments whose next step must be a no-op, shown as FIRST.
        self.resuming = np.zeros(self._num_envs, bool)
        self._owed_last = np.zeros(self._num_envs, bool)
        self._owed_terminated = np.zeros(self._num_envs, bool)

    def relabel(
        self, first: np.ndarray, terminated: np.ndarray, truncated: np.ndarray, lives: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """One step of the games, as <bool>[N] and lives <int>[N], to one of the episodes.

        Returns <bool>[N] each: first, last, terminated of the episodes, and whether the frame must
        be the previous one again.
        """
        game_over = terminated | truncated
        lost = (lives < self._lives) & ~game_over
        self._lives = np.array(lives)
        resuming, owed_last = self.resuming, self._owed_last
        self.resuming = (lost & ~resuming) | owed_last
        self._owed_last = resuming & game_over
        owed_terminated, self._owed_terminated = self._owed_terminated, resuming & terminated
        return (
            (first | resuming) & ~owed_last,
            ((game_over | lost) & ~resuming) | owed_last,
            ((terminated | lost) & ~resuming) | owed_terminated,
            owed_last,
        )
