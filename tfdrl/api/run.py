"""A run that there is on disk: how it ended, how good it was, and its policy, to act with."""

from __future__ import annotations

import ast
import functools
import os
import pathlib
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tfdrl import configuration
from tfdrl.errors import ConfigurationError
from tfdrl.launch import curves, run_directory, summary

if TYPE_CHECKING:
    from tfdrl.api.policy import Policy
    from tfdrl.rpc.run_messages import Evaluation


class Evaluations(NamedTuple):
    """The evaluations of a run, oldest first: arrays <float64>[evaluations].

    seconds         of training, when it was made
    frames          environment frames of training of the policy that played
    learner_steps   of it
    mean, standard_error, minimum, maximum    of the episodes' raw returns
    episodes        how many
    """

    seconds: np.ndarray
    frames: np.ndarray
    learner_steps: np.ndarray
    mean: np.ndarray
    standard_error: np.ndarray
    minimum: np.ndarray
    maximum: np.ndarray
    episodes: np.ndarray


class Run:
    """A run, finished or not; what it shows is what its directory has now.

    Args:
      root_dir: its directory.

    Raises ConfigurationError if it is none, or that of a newer tfdrl.
    """

    def __init__(self, root_dir: str | os.PathLike):
        self.root_dir = pathlib.Path(root_dir)
        if not (self.root_dir / run_directory.CONFIG).is_file():
            raise ConfigurationError(f"{root_dir} is no run: it has no {run_directory.CONFIG}")
        run_directory.check_version(root_dir)

    @property
    def ended(self) -> str:
        """Why its last start ended, with the exit code unless 0; empty until it has, or if it was
        killed."""
        return summary.read(self.root_dir).get("ended", "").replace(" (exit code 0)", "")

    @property
    def config(self) -> dict[str, Any]:
        """The settings that its gin files bind, by name.

        What refers to something configurable is a text, such as "@apex()".
        """
        path = self.root_dir / run_directory.CONFIG
        found = configuration.settings(configuration.read_utf8(path))
        return {name: _literal(value) for name, value in found.items()}

    @property
    def evaluations(self) -> Evaluations:
        """Those of all its starts."""
        rows = [row for row in curves.read(self.root_dir) if {*Evaluations._fields} <= row.keys()]
        columns = ([row[name] for row in rows] for name in Evaluations._fields)
        return Evaluations(*(np.array(column, np.float64) for column in columns))

    @property
    def best_return(self) -> float | None:
        """The best mean return of its evaluations; None without any."""
        means = self.evaluations.mean
        finite = means[np.isfinite(means)]
        return float(finite.max()) if len(finite) else None

    @functools.cached_property
    def policy(self) -> Policy:
        """The policy of its best evaluation, greedy; loads TensorFlow, when it is asked for.

        Raises ConfigurationError if there is none.
        """
        from tfdrl.api.policy import Policy

        return Policy(self.root_dir / run_directory.POLICY)

    def play(
        self,
        episodes: int = 100,
        video: str | os.PathLike = "",
        *,
        seed: int | None = None,
        quiet: bool = False,
    ) -> Evaluation:
        """Plays whole episodes with its newest checkpoint, as `tfdrl-evaluate` does.

        Args:
          episodes: how many.
          video: an .mp4 file for the first of them; needs tfdrl[video].
          seed: of the environments; None: one that the run's own evaluations did not use.
          quiet: nothing is printed.

        Returns the evaluation: mean, median, standard_error, min, max, episodes and more.

        Raises ConfigurationError without a checkpoint or an episode, and for a video that cannot be
        made.
        """
        from tfdrl.api import training
        from tfdrl.api.channel import Worker
        from tfdrl.launch.settings import whole_number
        from tfdrl.rpc.run_messages import Evaluation

        request = {
            "root_dir": str(self.root_dir),
            "episodes": whole_number("episodes", episodes, 1),
            "video": os.fspath(video),
            "seed": None if seed is None else whole_number("seed", seed, 0),
        }
        say = (lambda line: None) if quiet else print
        worker = Worker(training.WORKER, ["play", request], say)
        results = training.followed(worker)
        if "evaluation" not in results:
            raise worker.failure()
        return Evaluation(**results["evaluation"])

    def __repr__(self) -> str:
        return f"<Run {self.root_dir}: {self.ended or 'not ended'}; best return {self.best_return}>"


def load(root_dir: str | os.PathLike) -> Run:
    """The run in a directory. Raises ConfigurationError if it is none, or a newer tfdrl's."""
    return Run(root_dir)


def _literal(value: str) -> Any:
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value
