"""What a learner writes for people, beside checkpoints and events: evaluations and the result."""

from __future__ import annotations

import contextlib
import csv
import json
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import gin

from tfdrl.rpc.run_messages import Evaluation
from tfdrl.runtime import earlier_files
from tfdrl.runtime.metrics import MetricsWriter

_EVALUATION_COLUMNS = [
    "seconds",
    "frames",
    "learner_steps",
    "mean",
    "standard_error",
    "minimum",
    "maximum",
    "episodes",
]


class RunFiles:
    """Files under root_dir. One that cannot be written costs a warning, not the run.

    Args:
      root_dir: of the run.
      metrics: the learner's, which show settings and result, too; None: they do not.
    """

    def __init__(self, root_dir: pathlib.Path, metrics: MetricsWriter | None = None):
        self._root, self._metrics = pathlib.Path(root_dir), metrics
        self._result = self._root / earlier_files.RESULT
        self._wrote_operative_config = False

    def add_evaluation(self, evaluation: Evaluation, training_secs: float) -> None:
        """A row of evaluations.csv."""
        row = [
            round(training_secs, 1),
            evaluation.frames,
            evaluation.version,
            evaluation.mean,
            evaluation.standard_error,
            evaluation.min,
            evaluation.max,
            evaluation.episodes,
        ]
        path = self._root / "evaluations.csv"
        try:
            is_new = not path.exists()
            with path.open("a", newline="") as file:
                writer = csv.writer(file)
                writer.writerows([_EVALUATION_COLUMNS, row] if is_new else [row])
        except OSError as error:
            logging.warning("%s could not be written: %s", path, error)

    def put_result_aside(self) -> None:
        """That of an earlier start, to result.json.1 and so on: this one has no end yet.

        One of a learner that was started again by its launcher has no summary of that number.
        """
        try:
            earlier_files.put_aside(self._result, earlier_files.free_number(self._root))
        except OSError as error:
            logging.warning("%s of an earlier start stays: %s", self._result, error)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """result.json: why the run ended, and how far it was."""
        self._write(self._result, json.dumps(result, indent=2))
        evaluation = result.get("evaluation")
        if self._metrics is not None and evaluation:
            returns = {"return": evaluation["mean"], "best_return": result["best_return"]}
            shown = {f"result/{name}": value for name, value in returns.items()}
            self._metrics.write(result["learner_steps"], shown)

    def write_operative_config(self) -> None:
        """The gin settings that were used, once: beside the checkpoints."""
        if not self._wrote_operative_config:
            self._wrote_operative_config = True
            text = gin.operative_config_str()
            self._write(self._root / "checkpoints" / "operative_config.gin", text)
            if self._metrics is not None:
                self._metrics.settings(text)

    def _write(self, path: pathlib.Path, text: str) -> None:
        """Whole or not at all: a kill leaves what was there before."""
        partial = path.with_name(f"{path.name}.partial")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial.write_text(text)
            partial.replace(path)
        except OSError as error:
            logging.warning("%s could not be written: %s", path, error)
            with contextlib.suppress(OSError):
                partial.unlink()
