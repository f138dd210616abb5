"""A run on an MLflow server: metrics, parameters, tags, and files."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tfdrl.errors import ConfigurationError, UnavailableError
from tfdrl.tracking.destinations import End, RunToTrack
from tfdrl.tracking.points import Point

_METRICS_A_REQUEST, _PARAMETERS_A_REQUEST = 1000, 100  # MLflow's limits
#: What MLflow does not take in names.
_OTHER_CHARACTERS = re.compile(r"[^\w./ -]", re.ASCII)
#: MLflow's error codes of failures that may pass; a connection that fails is the first of them.
_TRANSIENT_CODES = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE", "REQUEST_LIMIT_EXCEEDED")
_EXISTS = "RESOURCE_ALREADY_EXISTS"
_LONGEST_ANSWER_SECS = 10.0


class MlflowServer:
    """An experiment on an MLflow server; `Destination` says what the methods do.

    Args:
      uri: of the server, such as "http://localhost:5000".
      experiment: MLflow's; made if it is not there.
      timeout_secs: of one request.
    """

    kind = "mlflow"

    def __init__(self, uri: str, experiment: str, timeout_secs: float):
        # MLflow would try seven times, for minutes; who calls this tries again.
        longest_secs = max(1, round(min(timeout_secs, _LONGEST_ANSWER_SECS)))
        os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(longest_secs)
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
        from mlflow.tracking import MlflowClient

        self.place = f"MLflow's experiment {experiment!r} at {uri}"
        self._client, self._experiment, self._run_id = MlflowClient(uri), experiment, ""

    def open(self, run_id: str, run: RunToTrack, points: int) -> str:
        with _translated_errors():
            # What is created is kept, also if what follows fails: the next try goes on with it.
            self._run_id = run_id or self._run_id or self._create(run.name)
            there = self._client.get_run(self._run_id)
            if there.info.lifecycle_stage != "active":
                gone = f"run {self._run_id} of {self.place} was deleted"
                raise ConfigurationError(f"{gone}: restore it")
            self._client.update_run(self._run_id, status="RUNNING")
            self._set_parameters(run.settings, there.data.params, there.data.tags)
            self._client.log_artifact(self._run_id, str(run.config))
        return self._run_id

    def _create(self, name: str) -> str:
        number = self._experiment_id() or self._create_experiment()
        return self._client.create_run(number, run_name=name).info.run_id

    def _experiment_id(self) -> str | None:
        found = self._client.get_experiment_by_name(self._experiment)
        return found and found.experiment_id

    def _create_experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        try:
            return self._client.create_experiment(self._experiment)
        except MlflowException as error:  # another process was quicker
            number = self._experiment_id() if error.error_code == _EXISTS else None
            if number is None:
                raise
            return number

    def _set_parameters(
        self, settings: Mapping[str, str], kept: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """MLflow's parameters never change: a setting that did is a tag, while it differs."""
        from mlflow.entities import Param, RunTag

        named = {_name(name): value for name, value in settings.items()}
        new = [Param(name, value) for name, value in named.items() if name not in kept]
        for batch in _batches(new, _PARAMETERS_A_REQUEST):
            self._client.log_batch(self._run_id, params=batch)
        changed = {name: value for name, value in named.items() if kept.get(name, value) != value}
        new_tags = [RunTag(f"changed/{name}", value) for name, value in changed.items()]
        for batch in _batches(new_tags, _PARAMETERS_A_REQUEST):
            self._client.log_batch(self._run_id, tags=batch)
        for name in named.keys() - changed.keys():
            if f"changed/{name}" in tags:
                self._client.delete_tag(self._run_id, f"changed/{name}")

    def add(self, points: Sequence[Point]) -> None:
        from mlflow.entities import Metric

        with _translated_errors():
            for batch in _batches(points, _METRICS_A_REQUEST):
                metrics = [Metric(_name(p.name), p.value, _milliseconds(p), p.step) for p in batch]
                self._client.log_batch(self._run_id, metrics=metrics)

    def missing(self, points: Sequence[Point]) -> list[Point]:
        there = set()
        with _translated_errors():
            for name in {_name(point.name) for point in points}:
                history = self._client.get_metric_history(self._run_id, name)
                there |= {(name, metric.step, metric.timestamp) for metric in history}
        return [p for p in points if (_name(p.name), p.step, _milliseconds(p)) not in there]

    def close(self, end: End | None) -> None:
        if end is None:
            return
        numbers = {name: x for name, x in end.result.items() if not isinstance(x, str)}
        step = int(numbers.get("learner_steps", 0))
        points = [Point("result", name, step, end.secs, float(x)) for name, x in numbers.items()]
        self.add(self.missing(points))
        texts = {name: x for name, x in end.result.items() if isinstance(x, str)}
        with _translated_errors():
            for name, text in {**texts, "ended": end.reason}.items():
                self._client.set_tag(self._run_id, _name(f"result/{name}"), text)
            if end.report is not None:
                self._client.log_artifact(self._run_id, str(end.report))
            status = "FAILED" if end.failed else "FINISHED" if end.reason else "KILLED"
            self._client.set_terminated(self._run_id, status)


def _name(name: str) -> str:
    return _OTHER_CHARACTERS.sub("_", name)


def _milliseconds(point: Point) -> int:
    return int(point.secs * 1000)


def _batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


@contextlib.contextmanager
def _translated_errors() -> Iterator[None]:
    """MLflow's errors as ours."""
    from mlflow.exceptions import MlflowException
    from requests import RequestException

    try:
        yield
    except RequestException as error:  # of files
        raise UnavailableError(str(error)) from None
    except MlflowException as error:
        kind = UnavailableError if error.error_code in _TRANSIENT_CODES else ConfigurationError
        raise kind(f"MLflow says: {_words(str(error).strip())}") from None


def _words(text: str) -> str:
    """Of a connection's failure the innermost cause: what is around it names the place again."""
    cause = text.partition("(Caused by ")[2].rpartition(": ")[2]
    return re.sub(r"[\"']\)+$", "", cause) or text
