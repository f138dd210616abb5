"""Any Gymnasium vector environment as a `BatchedEnvironment`."""

from __future__ import annotations

import math

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from tfdrl.environments import closing, returned, spaces
from tfdrl.environments.action_masks import ActionMasks
from tfdrl.environments.batched import (
    BatchedEnvironment,
    EpisodeLog,
    first_time_steps,
    picture,
    step_types,
)
from tfdrl.environments.stated_returns import stated_by
from tfdrl.errors import ConfigurationError
from tfdrl.types import Episodes, Nest, TimeSteps


class VectorizedEnvironment(BatchedEnvironment):
    """A `gymnasium.vector.VectorEnv` with next-step auto-reset.

    Args:
      vector_env: the environments. Its `single_observation_space` and `single_action_space`
        must be of the supported kinds (module spaces).
      seed: seeds the first reset; environment i gets a seed of its own derived from it. A
        vector environment that takes one seed only draws all N episodes from one generator.
      clip_reward: rewards are clipped to [-clip_reward, clip_reward]; None leaves them raw.
      action_mask: key of the mask of allowed actions, see `action_masks`; None for none.

    Raises:
      ConfigurationError: for unsupported spaces, another auto-reset mode, or no such mask. `reset`
        and `step`: MisfitError or NotFiniteError, see module returned.
    """

    is_checked = True

    def __init__(
        self,
        vector_env: VectorEnv,
        seed: int,
        clip_reward: float | None = None,
        action_mask: str | None = None,
    ):
        require_next_step_autoreset(vector_env)
        self.num_envs = vector_env.num_envs
        self.observation_spec = spaces.observation_spec(vector_env.single_observation_space)
        self.action_spec = spaces.action_spec(vector_env.single_action_space)
        self._to_env_action = spaces.action_converter(vector_env.single_action_space)
        self.action_mask, self._masks = action_mask, None
        if action_mask is not None:
            self._masks = ActionMasks(
                action_mask,
                vector_env_name(vector_env),
                "gym_environment.action_mask",
                self.observation_spec,
                self.action_spec,
            )
            self.observation_spec = self._masks.observation_spec
        self._vector_env = vector_env
        self.return_range = stated_by(vector_env)
        self.name = vector_env_name(vector_env)
        batched = batch_space(vector_env.single_observation_space, self.num_envs)
        self._fitted = returned.observation_fitter(batched, self.name)
        self.steps_per_second = _steps_per_second(vector_env.metadata.get("render_fps"))
        self._seed = reset_seed(vector_env, seed)
        self._clip_reward = clip_reward
        self._log = EpisodeLog(self.num_envs)
        self._was_last = np.zeros(self.num_envs, bool)

    def reset(self) -> TimeSteps:
        observation, info = self._vector_env.reset(seed=self._seed)
        self._seed = None  # later resets go on with the generators as they are
        self._log.restart()
        self._was_last = np.zeros(self.num_envs, bool)
        observation = self._observed(observation, info, self._was_last)
        return first_time_steps(observation, self.num_envs)

    def step(self, action: Nest) -> TimeSteps:
        observation, reward, terminated, truncated, info = self._vector_env.step(
            self._to_env_action(action)
        )
        # Raw: an infinite one would be clipped, and the log keeps them as they are.
        returned.require_finite(self.name, np.asarray(reward), self.num_envs)
        last = terminated | truncated
        self._log.add(reward, last)
        step_type = step_types(first=self._was_last, last=last)
        self._was_last = last
        reward = np.array(reward, np.float32)
        if self._clip_reward is not None:
            np.clip(reward, -self._clip_reward, self._clip_reward, out=reward)
        return TimeSteps(
            step_type=step_type,
            reward=reward,
            discount=np.subtract(1, terminated, dtype=np.float32),
            observation=self._observed(observation, info, terminated),
        )

    def _observed(self, observation: Nest, info: dict, is_over: np.ndarray) -> Nest:
        observation = self._fitted(observation)
        if self._masks is not None:
            observation = self._masks(observation, info, is_over)
        found = spaces.to_observation(self.observation_spec, observation)
        returned.require_specs(self, found)
        return found

    def take_episodes(self) -> Episodes:
        return self._log.take()

    def render(self) -> np.ndarray:
        frames = self._vector_env.render()
        name = vector_env_name(self._vector_env)
        return picture(frames[0] if frames else None, name)

    def close(self) -> None:
        closing.close_vector_env(self._vector_env)


def require_next_step_autoreset(vector_env: VectorEnv) -> None:
    """Raises ConfigurationError unless the observation of a last step is the true last one."""
    mode = vector_env.metadata.get("autoreset_mode")
    if mode != AutoresetMode.NEXT_STEP:
        raise ConfigurationError(
            f"{vector_env} resets in the mode {mode}; tfdrl needs AutoresetMode.NEXT_STEP. "
            'Set gym_environment.vectorization = "sync" to step single environments instead'
        )


def vector_env_name(vector_env: VectorEnv) -> str:
    """The registered id, or the class where there is none."""
    return vector_env.spec.id if vector_env.spec else type(vector_env).__name__


def reset_seed(vector_env: VectorEnv, seed: int) -> int | list[int]:
    """What to give `vector_env.reset(seed=)`: one seed per environment where it takes them."""
    seeds = environment_seeds(seed, vector_env.num_envs)
    return seeds if hasattr(vector_env, "env_fns") else seeds[0]


def environment_seeds(seed: int, num_envs: int) -> list[int]:
    """Independent seeds in [0, 2^31) for each of N environments."""
    # Not seed + i: actors with neighbouring seeds would then share episodes.
    state = np.random.SeedSequence(seed).generate_state(num_envs, np.uint32)
    return [int(word >> 1) for word in state]


def _steps_per_second(render_fps: object) -> float:
    """Of a recording; 30 unless the environment's makers say another positive number."""
    try:
        found = float(render_fps)
    except (TypeError, ValueError):
        return 30.0
    return found if 0 < found < math.inf else 30.0
