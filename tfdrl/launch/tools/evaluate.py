"""Plays whole episodes with what a run has learnt, and says how good they were."""

from __future__ import annotations

import os
import pathlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

from tfdrl import configuration
from tfdrl.errors import ConfigurationError, TfdrlError
from tfdrl.experiment import Experiment
from tfdrl.launch import run_directory

#: Distance from the run's seed: other episodes than those by which it chose its best policy.
SEED_OFFSET = 2_000_003
_MOST_ENVIRONMENTS = 100
_PROGRESS_PERIOD_SECS = 5.0


class Request(NamedTuple):
    """What to play.

    Attributes:
      root_dir: of the run; its config.gin describes agent and environment.
      episodes: how many.
      checkpoint: learner step or path prefix; empty for the newest.
      policy: directory of an exported policy, played in place of a checkpoint.
      environments: stepped together; 0 for as many as the run's own evaluations.
      video: mp4 file for the first episode; empty for none.
      seed: of the environments; None derives one from the run's.
      gin_bindings: settings that override the run's.
    """

    root_dir: pathlib.Path
    episodes: int = 100
    checkpoint: str = ""
    policy: str = ""
    environments: int = 0
    video: str = ""
    seed: int | None = None
    gin_bindings: Sequence[str] = ()


def evaluate(request: Request, stop: threading.Event, say: Callable[[str], None] = print):
    """Plays the greedy policy without training wrappers.

    Args:
      request: what to play.
      stop: ends it early, without a result.
      say: takes each line of progress, then the result.

    Returns:
      The `Evaluation` of the episodes.

    Raises:
      ConfigurationError: no such run, checkpoint or policy; one that cannot be read or is of
        another network; a video that cannot be made.
      TfdrlError: told to stop.
    """
    checkpoint = None
    if not request.policy:
        directory = request.root_dir / run_directory.CHECKPOINTS
        checkpoint = find_checkpoint(directory, request.checkpoint).absolute()
    say(f"loading the agent of {request.root_dir}")
    request = _from_anywhere(request)
    experiment = _experiment(request)
    import numpy as np

    from tfdrl.evaluation.episodes import summarise

    start_secs = time.monotonic()
    playing = _Playing(request, experiment, checkpoint, stop, say)
    returns = np.zeros(0)
    if request.video:
        returns = playing.film(request.video)
    if request.episodes > len(returns):
        returns = np.concatenate([returns, playing.play(request.episodes - len(returns))])
    evaluation = summarise(returns, playing.player.step, 0, start_secs)
    for name in ("mean", "median", "standard_error", "min", "max"):
        say(f"{name.replace('_', ' '):16}{getattr(evaluation, name):.2f}")
    say(f"{'episodes':16}{evaluation.episodes}")
    say(f"{'of':16}{playing.player.source}")
    if request.video:
        say(f"{'video':16}{request.video} (return {returns[0]:.2f})")
    return evaluation


def find_checkpoint(directory: pathlib.Path, wanted: str) -> pathlib.Path:
    """The path prefix of the complete checkpoint that is asked for.

    Args:
      directory: root_dir/checkpoints.
      wanted: a learner step, a path prefix as TensorFlow writes it, or empty for the newest.

    Raises:
      ConfigurationError: no such checkpoint; lists those there are.
    """
    # TensorFlow writes the index file last: a checkpoint that has one is complete.
    paths = [path.with_suffix("") for path in directory.glob("checkpoint-*.index")]
    known = {step_of(path): path for path in paths if step_of(path) >= 0}
    if not wanted and known:
        return known[max(known)]
    if wanted.isdigit() and int(wanted) in known:
        return known[int(wanted)]
    prefix = wanted[: -len(".index")] if wanted.endswith(".index") else wanted
    if prefix and pathlib.Path(f"{prefix}.index").is_file():
        return pathlib.Path(prefix)
    steps = ", ".join(map(str, sorted(known)))
    there = f"there are those of the steps {steps}" if known else "there is none at all"
    what = f"--checkpoint={wanted}: no such checkpoint" if wanted else "no checkpoint"
    raise ConfigurationError(f"{what} in {directory}; {there}")


def step_of(path: pathlib.Path) -> int:
    """The learner step in a checkpoint's name; -1 if it has none."""
    digits = path.name.rpartition("-")[2]
    return int(digits) if digits.isdigit() else -1


def _from_anywhere(request: Request) -> Request:
    """With absolute paths: the environment, or the package that has it, may change directory."""
    paths = {
        name: os.path.abspath(getattr(request, name))
        for name in ("policy", "video")
        if getattr(request, name)
    }
    return request._replace(root_dir=request.root_dir.absolute(), **paths)


def _experiment(request: Request) -> Experiment:
    config = request.root_dir / run_directory.CONFIG
    if not config.is_file():
        raise ConfigurationError(
            f"--root_dir={request.root_dir} is no run: it has no {run_directory.CONFIG}"
        )
    run_directory.check_version(request.root_dir)
    run_directory.check_temporary_directory()
    configuration.load([str(config)], request.gin_bindings, tensorflow=True)
    experiment = Experiment.from_gin()
    for part in ("environment", "agent"):
        if not callable(getattr(experiment.architecture, part, None)):
            name = type(experiment.architecture).__name__
            raise ConfigurationError(f"{config}: {name} has no {part}, so nothing can be played")
    return experiment


class _Playing:
    """Environments and player of one evaluation; the player is made with the first of them."""

    def __init__(
        self,
        request: Request,
        experiment: Experiment,
        checkpoint: pathlib.Path | None,
        stop: threading.Event,
        say: Callable[[str], None],
    ):
        self._request, self._experiment = request, experiment
        self._checkpoint, self._stop, self._say = checkpoint, stop, say
        self._seed = experiment.seed + SEED_OFFSET if request.seed is None else request.seed
        self._said_secs = time.monotonic()
        self._filmed = 0
        self.player = None

    def film(self, file: str):
        """Plays and records one episode; its return <float64>[1]."""
        from tfdrl.evaluation.video import Video

        for driver in ("SDL_VIDEODRIVER", "SDL_AUDIODRIVER"):  # pygame draws without a screen
            os.environ.setdefault(driver, "dummy")
        with self._environment(1, render=True) as environment:
            environment.reset()
            environment.render()  # before there is a file: it may be that nothing can be drawn
            with Video(file, environment.steps_per_second) as video:
                self._say(f"recording episode 1 of {self._request.episodes} to {file}")
                returns = self._play(environment, 1, lambda ended: video.add(environment.render()))
        self._filmed = 1
        return returns

    def play(self, episodes: int):
        """Plays episodes, several at once; their returns <float64>[episodes]."""
        usual = getattr(self._experiment.architecture, "evaluation_environments", 0)
        number = self._request.environments or min(usual or 1, _MOST_ENVIRONMENTS)
        with self._environment(min(number, episodes)) as environment:
            return self._play(environment, episodes, self._tell)

    def _environment(self, number: int, **how: bool):
        make = self._experiment.architecture.environment
        seed, self._seed = self._seed, self._seed + 1  # never the filmed episode again
        try:
            return make(num_envs=number, training=False, seed=seed, **how)
        except TypeError as error:
            if not how or "render" not in str(error):
                raise
            raise ConfigurationError(
                f"the environment factory {getattr(make, '__name__', make)} takes no render=True: "
                "--video is not possible"
            ) from error

    def _play(self, environment, episodes: int, on_step: Callable):
        from tfdrl.evaluation import episodes as evaluation_episodes

        if self.player is None:
            self.player = self._load(environment)
            self._say(f"{self.player.source}, greedy, {self._request.episodes} episodes")
        act, initial_state = self.player.act, self.player.initial_state
        returns = evaluation_episodes.play(
            environment, act, initial_state, episodes, self._stop.is_set, on_step
        )
        if len(returns) < episodes:
            raise TfdrlError(
                f"told to stop after {len(returns) + self._filmed} of {self._request.episodes} "
                "episodes: no result, since it would favour short episodes"
            )
        return returns

    def _load(self, environment):
        from tfdrl.evaluation.saved_players import from_checkpoint, from_saved_model

        if self._checkpoint is None:
            return from_saved_model(pathlib.Path(self._request.policy), environment)
        agent, path = self._experiment.architecture.agent, self._checkpoint
        return from_checkpoint(agent, environment, path, step_of(path))

    def _tell(self, ended) -> None:
        if time.monotonic() - self._said_secs < _PROGRESS_PERIOD_SECS:
            return
        self._said_secs = time.monotonic()
        mean = f", mean of these {ended.mean():.2f}" if len(ended) else ""
        self._say(f"  {len(ended) + self._filmed} of {self._request.episodes} episodes{mean}")
