"""The learner's side: publishes parameters, counts reports, tells roles when to stop."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import grpc
import numpy as np

from tfdrl.rpc import channels, grpc_server, training_pb2
from tfdrl.rpc import run_messages as messages
from tfdrl.rpc.departures import Departures
from tfdrl.rpc.mismatches import check_experiment, check_join
from tfdrl.rpc.outgoing_replies import OutgoingReplies
from tfdrl.rpc.published_parameters import PublishedParameters
from tfdrl.rpc.report_ledger import Ledger, TooManyRunsError
from tfdrl.rpc.report_rules import ReportRules
from tfdrl.rpc.run_messages import Evaluation
from tfdrl.rpc.security import Security
from tfdrl.rpc.status_reply import add_roles
from tfdrl.topology import Address
from tfdrl.types import Episodes, ItemCounts

_LOG = logging.getLogger(__name__)
_MAX_LOGGED_DOUBTS = 100


class MoreServices(NamedTuple):
    """Services that share an address with the training service.

    Attributes:
      services: handlers by method name, by full name of the service.
      streams: how many calls of theirs last as long as their clients.
      max_receive_bytes: of one of their requests.
    """

    services: Mapping[str, grpc_server.Handlers] = {}
    streams: int = 0
    max_receive_bytes: int = 0


class TrainingServer:
    """Serves the `Training` service of training.proto. All methods are thread-safe.

    Attributes:
      address: where it listens, with the real port.

    Args:
      address: host and port; port 0 picks a free one. Nothing listens on other hosts.
      experiment: digest of the configuration; requests of others are refused.
      specs: text of the specs; compared with that of a role that joins and has one.
      max_message_bytes: bound of one parameter set.
      max_concurrent_rpcs: calls beyond it get RESOURCE_EXHAUSTED; clients try again.
      more: services beside this one at the same address.
      security: of the server.
      rules: which reports are the program's.
      state: `state()` of its predecessor: a role that kept its run_id goes on counting.
      trained_secs: in which the counts of `state` came to be; what cannot have is left out.
      learner_step: as of `set_status`, until that is called.

    Raises ConfigurationError if the port is in use, a bound is out of range, or `state` is not one.
    """

    def __init__(
        self,
        address: Address,
        experiment: str,
        specs: str = "",
        *,
        max_message_bytes: int = channels.DEFAULT_MAX_MESSAGE_BYTES,
        max_concurrent_rpcs: int = channels.MOST_CONNECTIONS,
        more: MoreServices = MoreServices(),  # noqa: B008  (immutable)
        security: Security = Security(),  # noqa: B008
        rules: ReportRules = ReportRules(),  # noqa: B008
        state: dict[str, Any] | None = None,
        trained_secs: float = math.inf,
        learner_step: int = 0,
    ):
        """Starts to listen."""
        self._experiment = experiment
        self._specs = specs
        self._lock = threading.Lock()
        self._rules, self._ledger = rules, Ledger(rules)
        self._counts_no_more = False
        if state is not None:
            self._ledger.restore(state, trained_secs)
        self._published = PublishedParameters(max_message_bytes)
        self._learner_step = learner_step
        self._metrics: dict[str, float] = {}
        self._doing, self._start_secs = "", time.monotonic()
        self._stop_reason: str | None = None
        self._departures, self._doubts = Departures(), 0
        self._server = grpc_server.Server(
            address,
            {messages.SERVICE: self._handlers(), **more.services},
            max_concurrent_rpcs=max_concurrent_rpcs + more.streams,
            max_receive_bytes=max(messages.MAX_REQUEST_BYTES, more.max_receive_bytes),
            max_send_bytes=max_message_bytes,
            security=security,
        )
        self.address = self._server.address

    def publish(self, version: int, tensors: Sequence[np.ndarray]) -> None:
        """Makes `tensors` the parameters that roles get from now on.

        Copies and serialises once, however many roles pull; a pull gets all of the old set or
        all of the new one.

        Raises ValueError if `version` does not grow, ConfigurationError if the set is larger
        than max_message_bytes or holds a dtype that cannot travel.
        """
        self._published.publish(version, tensors)

    def take_evaluations(self) -> list[Evaluation]:
        """Evaluations reported since the last call."""
        with self._lock:
            return self._ledger.take_evaluations()

    def take_episodes(self) -> Episodes:
        """Training episodes reported since the last call: returns and lengths in frames."""
        with self._lock:
            return self._ledger.take_episodes()

    def frames(self) -> int:
        """Environment frames of training, over all roles and runs."""
        with self._lock:
            return self._ledger.frames()

    def items(self) -> ItemCounts:
        """Items over all roles and runs, since the counting for the replay ratio began."""
        with self._lock:
            return self._ledger.items()

    def count_sampled(self, items: int) -> None:
        """Adds items that the learner of this process has trained on."""
        with self._lock:
            self._ledger.count_sampled(items)

    def count_for_ratio(self, ratio: float | None, inserted: int) -> bool:
        """As `Ledger.count_for_ratio`: begins anew unless the counts are of this ratio already."""
        with self._lock:
            return self._ledger.count_for_ratio(ratio, inserted)

    def set_status(self, learner_step: int, metrics: Mapping[str, float]) -> None:
        """Sets what Status says of the learner itself."""
        learner_step = int(learner_step)
        metrics = {name: float(value) for name, value in metrics.items()}
        with self._lock:
            self._learner_step, self._metrics = learner_step, metrics

    def set_doing(self, words: str) -> None:
        """Sets what Status says that the learner does; "" for nothing that needs to be said."""
        with self._lock:
            self._doing = words

    def role_metrics(self) -> dict[tuple[str, int], tuple[float, dict[str, float]]]:
        """By role and task: seconds since its last report, and its metrics."""
        with self._lock:
            roles = self._ledger.roles()
        return {(r.role, r.task): (r.seconds_since_report, r.metrics) for r in roles}

    def finish(self, reason: str) -> None:
        """From now on every report is answered with stop and `reason`; the first call counts."""
        with self._lock:
            if self._stop_reason is None:
                self._stop_reason = reason

    def everybody_left(self, recent_secs: float = 5.0) -> bool:
        """Whether every role that came lately was told to stop and has reported once more.

        That is its last report: `finish` was called, and nothing more is to come.

        Args:
          recent_secs: a role that has been silent for longer has left in another way.
        """
        with self._lock:
            return self._departures.is_everybody(self._ledger.roles(), recent_secs)

    def state(self, is_last: bool = False) -> dict[str, Any]:
        """The counters, for the checkpoint: JSON can hold it.

        Args:
          is_last: nothing is counted from here on: who reports later tells the next learner, and
            nobody sees a count that the checkpoint does not have.
        """
        with self._lock:
            self._counts_no_more = is_last
            return self._ledger.state()

    def close(self, grace_secs: float = 1.0) -> None:
        """Stops listening; calls in progress have `grace_secs` to end. May be called twice."""
        self._server.close(grace_secs)

    def _handlers(self) -> grpc_server.Handlers:
        return {
            "Join": grpc_server.unary(self._join, training_pb2.JoinRequest),
            "GetParameters": grpc_server.unary(
                self._get_parameters, training_pb2.ParametersRequest, OutgoingReplies()
            ),
            "Report": grpc_server.unary(self._report, training_pb2.ReportRequest),
            "Status": grpc_server.unary(self._status, training_pb2.StatusRequest),
        }

    def _join(self, request: training_pb2.JoinRequest) -> bytes:
        check_join(request, self._experiment, self._specs)
        self._rules.check_sender(request.sender)
        with self._lock:
            self._departures.came(request.sender.role, request.sender.task)
        return training_pb2.JoinReply(
            experiment=self._experiment, version=self._published.version
        ).SerializeToString()

    def _get_parameters(self, request: training_pb2.ParametersRequest) -> bytes:
        check_experiment(request.sender, self._experiment)
        return self._published.reply_to(request.have_version)

    def record(self, request: training_pb2.ReportRequest) -> None:
        """Counts a report that came by another service of this process.

        An evaluation that cannot be true is left out, with a warning.

        Raises MessageError if it makes no sense, RefusedError if there are too many senders, or
        one that the program has not.
        """
        messages.check_report(request)
        self._rules.check(request)
        if request.HasField("evaluation"):
            why = self._why_not(messages.evaluation_from_message(request.evaluation))
            if why:
                request.ClearField("evaluation")
                self._doubts += 1
                if self._doubts <= _MAX_LOGGED_DOUBTS:
                    _LOG.warning("an evaluation does not count: %s", why)
        with self._lock:
            if self._counts_no_more:
                if self._stop_reason is not None:
                    return  # the run is over, and whoever reports late must be told so
                raise grpc_server.RefusedError(
                    grpc.StatusCode.UNAVAILABLE, "the last checkpoint is being written"
                )
            try:
                self._ledger.record(request)
            except TooManyRunsError as error:
                raise grpc_server.RefusedError(
                    grpc.StatusCode.RESOURCE_EXHAUSTED, str(error)
                ) from None

    def _why_not(self, evaluation: Evaluation) -> str:
        """Why an evaluation cannot be true; "" if it can."""
        if not self._published.has_been(evaluation.version):
            return f"this learner has not published version {evaluation.version}"
        return self._rules.why_not(evaluation)

    def _report(self, request: training_pb2.ReportRequest) -> bytes:
        check_experiment(request.sender, self._experiment)
        self.record(request)
        with self._lock:
            frames, items = self._ledger.frames(), self._ledger.items()
            reason = self._stop_reason
            if reason is not None:
                self._departures.was_told(request.sender.role, request.sender.task)
        return training_pb2.ReportReply(
            stop=reason is not None,
            reason=reason or "",
            frames=frames,
            items_inserted=items.inserted,
            items_sampled=items.sampled,
        ).SerializeToString()

    def _status(self, request: training_pb2.StatusRequest) -> bytes:
        if request.sender.experiment:
            check_experiment(request.sender, self._experiment)
        with self._lock:
            reply = training_pb2.StatusReply(
                experiment=self._experiment,
                learner_step=self._learner_step,
                frames=self._ledger.frames(),
                version=self._published.version,
                metrics={**self._metrics, messages.UPTIME: time.monotonic() - self._start_secs},
                doing=self._doing,
                finished=self._stop_reason is not None,
                reason=self._stop_reason or "",
            )
            evaluation, roles = self._ledger.last_evaluation, self._ledger.roles()
        add_roles(reply, roles, evaluation)
        return reply.SerializeToString()
