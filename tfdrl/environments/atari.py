"""Atari 2600 games, preprocessed as in the DQN paper and its successors.

Preprocessing (Mnih et al. 2015, Methods, "Preprocessing" and "Training details"; Machado et
al. 2018 for sticky actions): each action is repeated 4 times; pixel-wise maximum over the last
2 of the 4 frames; grey; 84x84; the last 4 such frames stacked, channels last; up to 30 no-ops
at the start of a game; games cut at 108,000 frames (30 minutes, a truncation). Frames of an
earlier game never appear in a stack: it is filled with zeros.

Screens are made smaller by area averaging, as both backends below do it (the releases of DQN's
authors and of SEED RL interpolate linearly between pixels; the paper names no way).

Two backends run the emulator: ale_py's `AtariVectorEnv` (C++, several threads) and
Gymnasium's `AtariPreprocessing` (Python, one thread). tests/environments/test_atari.py asserts
that they agree bit for bit on observations, rewards and ends. One difference remains: the
native backend draws 0 to 30 no-ops, Gymnasium's 1 to 30.
"""

from __future__ import annotations

import dataclasses

import gymnasium
import numpy as np
from gymnasium.vector import SyncVectorEnv, VectorEnv
from gymnasium.wrappers import AtariPreprocessing

from tfdrl.environments import spaces
from tfdrl.environments.batched import (
    BatchedEnvironment,
    EpisodeLog,
    first_time_steps,
    picture,
    step_types,
)
from tfdrl.environments.life_loss import NO_OP, LifeLossEpisodes
from tfdrl.environments.vectorized import environment_seeds, require_next_step_autoreset
from tfdrl.errors import ConfigurationError
from tfdrl.types import ArraySpec, Episodes, Nest, TimeSteps

_SCREEN_FRAMES_PER_SECOND = 60.0
_WORDS = {1: "<u1", 2: "<u2", 4: "<u4", 8: "<u8"}


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How a game is run; see the module docstring for the papers' values."""

    frame_skip: int = 4
    screen_size: int = 84
    noop_max: int = 30
    max_episode_frames: int = 108_000
    repeat_action_probability: float = 0.0
    full_action_space: bool = False

    def __post_init__(self):
        for name, lowest in (
            ("frame_skip", 1),
            ("screen_size", 1),
            ("noop_max", 0),
            ("max_episode_frames", 1),
        ):
            if getattr(self, name) < lowest:
                raise ConfigurationError(
                    f"atari_environment.{name} = {getattr(self, name)}; at least {lowest} is needed"
                )
        if not 0.0 <= self.repeat_action_probability <= 1.0:
            raise ConfigurationError(
                "atari_environment.repeat_action_probability = "
                f"{self.repeat_action_probability}; a probability lies in [0, 1]"
            )


def native_emulators(game: str, num_envs: int, how: Preprocessing, threads: int) -> VectorEnv:
    """ale_py's vector environment. Observations <uint8>[N, 1, size, size]."""
    from ale_py.vector_env import AtariVectorEnv

    return AtariVectorEnv(
        game,
        num_envs,
        num_threads=threads,
        frameskip=how.frame_skip,
        stack_num=1,
        img_height=how.screen_size,
        img_width=how.screen_size,
        noop_max=how.noop_max + 1 if how.noop_max else 0,  # it draws below noop_max
        max_num_frames_per_episode=how.max_episode_frames,
        repeat_action_probability=how.repeat_action_probability,
        full_action_space=how.full_action_space,
        use_fire_reset=False,  # no paper presses FIRE for the agent
        reward_clipping=False,  # take_episodes reports raw rewards
        episodic_life=False,  # it would reset the emulator
    )


def gymnasium_emulators(
    game_id: str, num_envs: int, how: Preprocessing, render: bool = False
) -> VectorEnv:
    """Gymnasium's wrappers, one environment after the other. <uint8>[N, size, size]."""

    def single() -> gymnasium.Env:
        env = gymnasium.make(
            game_id,
            disable_env_checker=True,
            render_mode="rgb_array" if render else None,
            frameskip=1,
            repeat_action_probability=how.repeat_action_probability,
            full_action_space=how.full_action_space,
            max_num_frames_per_episode=how.max_episode_frames,
        )
        return AtariPreprocessing(
            env,
            noop_max=how.noop_max,
            frame_skip=how.frame_skip,
            screen_size=how.screen_size,
        )

    return SyncVectorEnv([single] * num_envs, copy=False)


class FrameStack:
    """The last k frames of N games as channels, oldest first, zeros before a game's start.

    The k bytes of a pixel are one little-endian word: pushing a frame is a shift by one byte
    and a write of the top byte, ten times as fast as moving the channels.
    """

    def __init__(self, num_envs: int, frame_stack: int, screen_size: int):
        if frame_stack not in _WORDS:
            raise ConfigurationError(
                f"frame_stack={frame_stack} is not possible; it must be 1, 2, 4 or 8"
            )
        self._words = np.zeros((num_envs, screen_size, screen_size), _WORDS[frame_stack])

    @property
    def newest(self) -> np.ndarray:
        """The frames that were pushed last, <uint8>[N, size, size]."""
        return (self._words >> 8 * (self._words.itemsize - 1)).astype(np.uint8)

    def push(self, frames: np.ndarray, first: np.ndarray) -> np.ndarray:
        """Adds frames <uint8>[N, size, size]; `first` <bool>[N] empties those stacks before.

        Returns a new, read-only <uint8>[N, size, size, k].
        """
        words = self._words >> 8
        if first.any():
            words[first] = 0
        self._words = words
        stack = words.view(np.uint8).reshape(*words.shape, words.itemsize)
        stack[..., -1] = frames
        stack.flags.writeable = False
        return stack


class AtariEnvironment(BatchedEnvironment):
    """N Atari games.

    Args:
      emulators: from `native_emulators` or `gymnasium_emulators`.
      seed: seeds the first reset; each emulator gets a seed of its own derived from it.
      frame_stack: frames in an observation <uint8>[size, size, frame_stack].
      frames_per_step: emulator frames per step, the emulators' frame skip.
      clip_reward: rewards are clipped to [-clip_reward, clip_reward]; None leaves them raw.
      life_loss: whether a lost life ends an episode; see `LifeLossEpisodes`.
    """

    is_checked = True  # by ale_py: its screens are bytes

    def __init__(
        self,
        emulators: VectorEnv,
        seed: int,
        *,
        frame_stack: int,
        frames_per_step: int,
        clip_reward: float | None,
        life_loss: bool,
    ):
        require_next_step_autoreset(emulators)
        self.num_envs = emulators.num_envs
        self.frames_per_step = frames_per_step
        self.frame_stack = frame_stack
        self.steps_per_second = _SCREEN_FRAMES_PER_SECOND / frames_per_step
        size = emulators.single_observation_space.shape[-1]
        self.observation_spec = ArraySpec(
            (size, size, frame_stack), np.dtype(np.uint8), 0, 255, "observation"
        )
        self.action_spec = spaces.action_spec(emulators.single_action_space)
        self._to_env_action = spaces.action_converter(emulators.single_action_space)
        self._emulators = emulators
        self._frames_shape = (self.num_envs, size, size)
        seeds = environment_seeds(seed, self.num_envs)
        # Gymnasium's vector environments want a list, ale_py's an array.
        self._seed = seeds if isinstance(emulators, SyncVectorEnv) else np.array(seeds)
        self._clip_reward = clip_reward
        self._stack = FrameStack(self.num_envs, frame_stack, size)
        self._life_loss = LifeLossEpisodes(self.num_envs) if life_loss else None
        self._log = EpisodeLog(self.num_envs, frames_per_step)
        self._steps_made = 0
        self._game_was_over = np.zeros(self.num_envs, bool)
        self._stack_is_over = np.zeros(self.num_envs, bool)

    def reset(self) -> TimeSteps:
        frames, info = self._emulators.reset(seed=self._seed)
        self._seed = None  # later resets go on with the generators as they are
        self._log.restart()
        self._game_was_over = np.zeros(self.num_envs, bool)
        self._stack_is_over = np.zeros(self.num_envs, bool)
        if self._life_loss:
            self._life_loss.restart(info["lives"])
        observation = self._stack.push(
            frames.reshape(self._frames_shape), first=np.ones(self.num_envs, bool)
        )
        return first_time_steps(observation, self.num_envs)

    def steps_made(self, time_step: TimeSteps) -> int:
        """As `BatchedEnvironment.steps_made`; a no-op after a lost life is a step of the game."""
        return self._steps_made

    def step(self, action: Nest) -> TimeSteps:
        action = self._to_env_action(action)
        if self._life_loss:
            action = np.where(self._life_loss.resuming, NO_OP, action)
        frames, reward, terminated, truncated, info = self._emulators.step(action)
        last = terminated | truncated
        self._log.add(reward, last, info["episode_frame_number"])
        first, self._game_was_over = self._game_was_over, last
        self._steps_made = self.num_envs - int(np.count_nonzero(first))
        frames, starts = frames.reshape(self._frames_shape), first
        if self._life_loss:
            first, last, terminated, repeated = self._life_loss.relabel(
                first, terminated, truncated, info["lives"]
            )
            starts = (starts & ~repeated) | self._stack_is_over
            self._stack_is_over = repeated
            if repeated.any():
                frames = np.where(repeated[:, None, None], self._stack.newest, frames)
        observation = self._stack.push(frames, starts)
        return TimeSteps(
            step_type=step_types(first, last),
            reward=self._learning_reward(reward, first),
            discount=np.subtract(1, terminated, dtype=np.float32),
            observation=observation,
        )

    def _learning_reward(self, reward: np.ndarray, first: np.ndarray) -> np.ndarray:
        reward = np.array(reward, np.float32)
        reward[first] = 0.0  # a no-op after a lost life may score
        if self._clip_reward is not None:
            np.clip(reward, -self._clip_reward, self._clip_reward, out=reward)
        return reward

    def take_episodes(self) -> Episodes:
        return self._log.take()

    def render(self) -> np.ndarray:
        frames = self._emulators.render()
        return picture(frames[0] if frames else None, "the game")

    def close(self) -> None:
        self._emulators.close()
