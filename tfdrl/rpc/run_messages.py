"""What the training service and its clients say to each other, as named tuples."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from tfdrl.rpc import training_pb2
from tfdrl.rpc.tensors import MessageError
from tfdrl.types import Episodes, ItemCounts

_LOG = logging.getLogger(__name__)

SERVICE = "tfdrl.v1.Training"
#: Changes when an old client and a new server would misunderstand each other.
PROTOCOL_VERSION = 1
#: Among the metrics of a status, but none: how long the service has been there.
UPTIME = "uptime_secs"
#: Version of the parameters before any were published.
NO_VERSION = -1

MAX_ROLE_CHARACTERS = 64
MAX_METRICS = 64
MAX_METRIC_CHARACTERS = 64
#: Of frames and items of one process, and of the frames of an episode.
MAX_COUNT = 1 << 46
#: Episodes in one report; about 3 MB.
MAX_EPISODES = 1 << 18
#: Bound of one request: episodes, metrics and specs, never parameters.
MAX_REQUEST_BYTES = 8 << 20


def finite_episodes(episodes: Episodes) -> Episodes:
    """Those whose return is finite; a warning tells of the others, which no report may hold."""
    is_finite = np.isfinite(episodes.returns)
    if is_finite.all():
        return episodes
    _LOG.warning("returns of %s: look at the rewards", episodes.returns[~is_finite])
    return Episodes(episodes.returns[is_finite], episodes.length_frames[is_finite])


class Evaluation(NamedTuple):
    """One evaluation of one version of the policy; returns are raw and undiscounted.

    version          of the parameters
    frames           environment frames of training when they were published
    mean .. max      of the returns of the episodes
    episodes         how many
    seconds          how long it took
    """

    version: int
    frames: int
    mean: float
    median: float
    standard_error: float
    min: float
    max: float
    episodes: int
    seconds: float


class ReportReply(NamedTuple):
    """The learner's answer to a report; `frames_total` and `items` are over all roles and runs."""

    stop: bool
    reason: str
    frames_total: int
    items: ItemCounts = ItemCounts(0, 0)


class RoleStatus(NamedTuple):
    """The last report of one process."""

    role: str
    task: int
    run_id: int
    seconds_since_report: float
    metrics: dict[str, float]


class Status(NamedTuple):
    """The run at a glance; `version` is -1 before the first parameters were published.

    `doing` says what the learner does before its first step; `uptime_secs` is of its service.
    """

    experiment: str
    learner_step: int
    frames: int
    version: int
    metrics: dict[str, float]
    roles: list[RoleStatus]
    evaluation: Evaluation | None
    finished: bool
    reason: str
    doing: str = ""
    uptime_secs: float = 0.0


def evaluation_to_message(evaluation: Evaluation) -> training_pb2.Evaluation:
    """The message of `evaluation`."""
    return training_pb2.Evaluation(**evaluation._asdict())


def evaluation_from_message(message: training_pb2.Evaluation) -> Evaluation:
    """The named tuple of `message`."""
    return Evaluation(*(getattr(message, field) for field in Evaluation._fields))


def status_from_message(message: training_pb2.StatusReply) -> Status:
    """The named tuple of `message`."""
    roles = [
        RoleStatus(r.role, r.task, r.run_id, r.seconds_since_report, dict(r.metrics))
        for r in message.roles
    ]
    evaluation = None
    if message.HasField("evaluation"):
        evaluation = evaluation_from_message(message.evaluation)
    metrics = dict(message.metrics)
    return Status(
        experiment=message.experiment,
        learner_step=message.learner_step,
        frames=message.frames,
        version=message.version,
        uptime_secs=metrics.pop(UPTIME, 0.0),
        metrics=metrics,
        roles=roles,
        evaluation=evaluation,
        finished=message.finished,
        reason=message.reason,
        doing=message.doing,
    )


def check_report(request: training_pb2.ReportRequest) -> None:
    """Raises MessageError for a report that makes no sense, so that nothing of it is counted.

    Metrics may be NaN or infinite (people need to see a diverging loss); nothing else may.
    """
    role = request.sender.role
    if not 1 <= len(role) <= MAX_ROLE_CHARACTERS:
        raise MessageError(
            f"role {role[:MAX_ROLE_CHARACTERS]!r} has {len(role)} characters; "
            f"it must have 1 to {MAX_ROLE_CHARACTERS}"
        )
    for name in ("frames", "items_inserted", "items_sampled"):
        count = getattr(request, name)
        if not 0 <= count <= MAX_COUNT:
            raise MessageError(f"{name} is {count}; it counts up from 0 to {MAX_COUNT} at most")
    _check_metrics(request.metrics)
    _check_episodes(request.episodes)
    if request.HasField("evaluation"):
        _check_evaluation(evaluation_from_message(request.evaluation))


def _check_metrics(metrics: Mapping[str, float]) -> None:
    if len(metrics) > MAX_METRICS:
        raise MessageError(f"{len(metrics)} metrics; at most {MAX_METRICS}")
    for name in metrics:
        if not 1 <= len(name) <= MAX_METRIC_CHARACTERS:
            raise MessageError(
                f"metric {name[:MAX_METRIC_CHARACTERS]!r} has {len(name)} characters; "
                f"it must have 1 to {MAX_METRIC_CHARACTERS}"
            )


def _check_episodes(episodes: training_pb2.Episodes) -> None:
    returns, lengths = episodes.returns, episodes.length_frames
    if len(returns) != len(lengths):
        raise MessageError(f"{len(returns)} episode returns but {len(lengths)} lengths")
    if len(returns) > MAX_EPISODES:
        raise MessageError(f"{len(returns)} episodes in one report; at most {MAX_EPISODES}")
    if not np.isfinite(np.array(returns, np.float32)).all():
        raise MessageError("an episode's return is not a finite number")
    shortest_frames = np.array(lengths, np.int64).min(initial=1)
    if shortest_frames < 1:
        raise MessageError(f"an episode's length is {shortest_frames} frames; it is at least 1")
    longest_frames = np.array(lengths, np.int64).max(initial=0)
    if max(longest_frames, episodes.first) > MAX_COUNT:
        raise MessageError(
            f"an episode of {longest_frames} frames after {episodes.first} others; both are at "
            f"most {MAX_COUNT}"
        )


def _check_evaluation(evaluation: Evaluation) -> None:
    for name, value in evaluation._asdict().items():
        if not math.isfinite(value):
            raise MessageError(f"evaluation.{name} is {value}; it must be a finite number")
    for name in ("frames", "episodes", "seconds", "standard_error"):
        if getattr(evaluation, name) < 0:
            raise MessageError(
                f"evaluation.{name} is {getattr(evaluation, name)}; it must not be negative"
            )
    slack = 1e-6 * max(abs(evaluation.min), abs(evaluation.max))
    for name in ("mean", "median"):
        if not evaluation.min - slack <= getattr(evaluation, name) <= evaluation.max + slack:
            raise MessageError(
                f"evaluation.{name} is {getattr(evaluation, name):g}, and not between min and max, "
                f"{evaluation.min:g} and {evaluation.max:g}"
            )
