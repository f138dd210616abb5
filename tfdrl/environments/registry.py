"""Environment factories: gin-configurable, all `factory(num_envs=, training=, seed=)`."""

from __future__ import annotations

import difflib
import functools
import importlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gin
import gymnasium

from tfdrl.environments import atari, returned
from tfdrl.environments.batched import BatchedEnvironment
from tfdrl.environments.vectorized import VectorizedEnvironment
from tfdrl.environments.wrapping import Wrapping
from tfdrl.errors import ConfigurationError

_VECTORIZATIONS = ("auto", "sync", "async")
_BACKENDS = ("native", "gymnasium")


@gin.configurable
def gym_environment(
    num_envs: int,
    training: bool,
    seed: int,
    id: str = gin.REQUIRED,
    kwargs: Mapping[str, Any] | None = None,
    wrappers: Sequence[Callable[[gymnasium.Env], gymnasium.Env]] = (),
    training_wrappers: Sequence[Callable[[gymnasium.Env], gymnasium.Env]] = (),
    clip_reward: float | None = None,
    vectorization: str = "auto",
    action_mask: str | None = None,
    render: bool = False,
) -> BatchedEnvironment:
    """N environments of any Gymnasium id.

    Args:
      num_envs: how many are stepped at once.
      training: False leaves the rewards unclipped.
      seed: the same seed and actions give the same steps.
      id: a registered id, such as "CartPole-v1"; "package.module:Name-v0" imports
        package.module first, which should register it.
      kwargs: arguments of the environment's constructor.
      wrappers: callables env -> env, applied to each environment in this order. They make the
        task: evaluation has them, too, and shows the rewards that they make.
      training_wrappers: more of them, applied after these for training only. They must leave
        the observations and the actions as they are.
      clip_reward: training rewards are clipped to [-clip_reward, clip_reward].
      vectorization: "auto" takes the environment's own vector implementation if it has one
        (and there are no wrappers, and it is the same task: ALE's is not), else "sync"; "sync"
        steps them one after the other in this process; "async" steps each in a process of its
        own, worth it above about a millisecond per step.
      action_mask: key of the mask of allowed actions, in a Dict observation or in `info`: agents
        take no other actions. None: every action is allowed. See docs/action_masks.md.
      render: steps them in this process in a way that `BatchedEnvironment.render` can draw.

    Raises:
      ConfigurationError: unknown id, constructor arguments the environment does not take, spaces
        that tfdrl does not support, or no such mask.
    """
    _check_counts(num_envs, clip_reward)
    _check_choice("gym_environment.vectorization", vectorization, _VECTORIZATIONS)
    spec = _find_spec(id)
    own_vector = vectorization == "auto" and spec.vector_entry_point and not render
    own_vector = own_vector and not (wrappers or training_wrappers)
    # Its vector class is another task by its defaults: stacked, scaled, with clipped rewards.
    own_vector = own_vector and spec.namespace != "ALE"
    kwargs = dict(kwargs or {}, **({"render_mode": "rgb_array"} if render else {}))
    infos = () if action_mask is None else (action_mask,)
    checked = functools.partial(returned.checked_env, infos=infos)
    wrapping = Wrapping(wrappers, training_wrappers, training)
    if own_vector:
        mode, vector_kwargs = "vector_entry_point", {}
    elif vectorization == "async" and not render:
        # A fork of a process with TensorFlow's or gRPC's threads may hang.
        mode, vector_kwargs = "async", {"copy": False, "context": "forkserver"}
    else:
        mode, vector_kwargs = "sync", {"copy": False}
    if not own_vector:
        kwargs.setdefault("disable_env_checker", True)
    try:
        vector_env = gymnasium.make_vec(
            spec,
            num_envs=num_envs,
            vectorization_mode=mode,
            vector_kwargs=vector_kwargs,
            wrappers=() if own_vector else (wrapping, checked),
            **kwargs,
        )
    except (gymnasium.error.Error, TypeError, ImportError) as error:
        drawn = " so that it can be drawn" if render else ""
        raise ConfigurationError(f"gym_environment: cannot make {id!r}{drawn}: {error}") from error
    except OSError as error:
        if mode != "async":
            raise  # of the environment's own files
        raise ConfigurationError(
            f"gym_environment.vectorization = 'async': {num_envs} processes of {id!r} cannot be "
            f"started: {error.strerror or error}. They need semaphores and shared memory in "
            "/dev/shm (docker run --shm-size=1g; an emptyDir with medium: Memory), file "
            "descriptors and processes; or set 'sync'"
        ) from error
    return VectorizedEnvironment(vector_env, seed, clip_reward if training else None, action_mask)


@gin.configurable
def atari_environment(
    num_envs: int,
    training: bool,
    seed: int,
    id: str = gin.REQUIRED,
    backend: str = "native",
    frame_skip: int = 4,
    frame_stack: int = 4,
    screen_size: int = 84,
    noop_max: int = 30,
    max_episode_frames: int = 108_000,
    repeat_action_probability: float = 0.0,
    full_action_space: bool = False,
    clip_reward: float | None = 1.0,
    life_loss: bool = True,
    threads: int = 1,
    render: bool = False,
) -> BatchedEnvironment:
    """N games of the Arcade Learning Environment; preprocessing as in module atari.

    Args:
      num_envs: how many are stepped at once.
      training: False leaves rewards unclipped and lost lives without meaning.
      seed: the same seed and actions give the same steps.
      id: "Pong" or "ALE/Pong-v5".
      backend: "native" (ale_py's C++ vector environment) or "gymnasium" (the reference).
      frame_skip: emulator frames per step; the action is repeated.
      frame_stack: frames in an observation: 1, 2, 4 or 8.
      screen_size: height and width of an observation in pixels.
      noop_max: the most no-ops at the start of a game.
      max_episode_frames: a game is truncated after as many emulator frames.
      repeat_action_probability: of sticky actions; 0.25 in Machado et al. 2018.
      full_action_space: all 18 actions instead of those the game uses.
      clip_reward: training rewards are clipped to [-clip_reward, clip_reward]; None: raw.
      life_loss: whether a lost life ends an episode in training (R2D2 and SEED: no).
      threads: emulator threads of the native backend.
      render: uses the gymnasium backend, which `BatchedEnvironment.render` can draw.

    Raises:
      ConfigurationError: ale_py is not installed, unknown id, or an impossible setting.
    """
    _check_counts(num_envs, clip_reward)
    _check_choice("atari_environment.backend", backend, _BACKENDS)
    if threads < 1:
        raise ConfigurationError(f"atari_environment.threads = {threads}; at least 1 is needed")
    spec = _find_spec(id if "/" in id else f"ALE/{id}-v5")
    if not spec.id.startswith("ALE/"):
        raise ConfigurationError(
            f"atari_environment.id = {id!r} is not an Atari game; write 'Pong' or "
            "'ALE/Pong-v5', or use gym_environment"
        )
    how = atari.Preprocessing(
        frame_skip=frame_skip,
        screen_size=screen_size,
        noop_max=noop_max,
        max_episode_frames=max_episode_frames,
        repeat_action_probability=repeat_action_probability,
        full_action_space=full_action_space,
    )
    try:
        if backend == "native" and not render:
            emulators = atari.native_emulators(spec.kwargs["game"], num_envs, how, threads)
        else:
            emulators = atari.gymnasium_emulators(spec.id, num_envs, how, render)
    except gymnasium.error.Error as error:
        raise ConfigurationError(f"atari_environment: cannot make {id!r}: {error}") from error
    return atari.AtariEnvironment(
        emulators,
        seed,
        frame_stack=frame_stack,
        frames_per_step=frame_skip,
        clip_reward=clip_reward if training else None,
        life_loss=life_loss and training,
    )


def _find_spec(id: str) -> gymnasium.envs.registration.EnvSpec:
    if id.startswith("ALE/"):
        _register_atari()
    try:
        # "module:Name-v0" means: import the module, which registers the name.
        module, _, name = id.rpartition(":")
        if module:
            importlib.import_module(module)
        return gymnasium.spec(name)
    except ImportError as error:
        raise ConfigurationError(f"environment id {id!r}: {error}") from error
    except gymnasium.error.Error as error:
        near = difflib.get_close_matches(name, gymnasium.registry, n=3, cutoff=0.5)
        hint = f"; the nearest registered ids are {', '.join(near)}" if near else ""
        raise ConfigurationError(f"there is no environment {id!r}{hint}") from error


def _register_atari() -> None:
    try:
        import ale_py
    except ImportError as error:
        raise ConfigurationError(
            'Atari games need ale_py, which is not installed: pip install "tfdrl[atari]"'
        ) from error
    gymnasium.register_envs(ale_py)


def _check_counts(num_envs: int, clip_reward: float | None) -> None:
    if num_envs < 1:
        raise ConfigurationError(f"num_envs={num_envs}: at least 1 environment is needed")
    if clip_reward is not None and not clip_reward > 0:
        raise ConfigurationError(
            f"clip_reward={clip_reward}: give a positive bound, or None for raw rewards"
        )


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigurationError(f"{name} = {value!r}: choose one of {', '.join(choices)}")
