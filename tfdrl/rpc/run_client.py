"""A role's side of the training service: join, pull parameters, report, ask for the status."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import grpc
import numpy as np
from google.protobuf import message as protobuf

from tfdrl.errors import ConfigurationError, UnavailableError
from tfdrl.rpc import channels, parameter_messages, training_pb2, usage
from tfdrl.rpc import run_messages as messages
from tfdrl.rpc.run_messages import Evaluation, ReportReply, Status
from tfdrl.rpc.security import Security
from tfdrl.rpc.tensors import MessageError
from tfdrl.topology import Address
from tfdrl.types import ItemCounts

_LOG = logging.getLogger(__name__)
_JOIN_TRY_SECS = 2.0
_JOIN_PAUSE_SECS = 0.25
_JOIN_LOG_SECS = 3.0
_Reply = TypeVar("_Reply")


class TrainingClient:
    """One role's connection to the learner.

    Every call has a deadline. UnavailableError means: try again later (the same client finds a
    learner that was restarted on its port). ConfigurationError means: never.
    Thread-safe, but report episodes from one thread only.

    Args:
      address: where the learner listens.
      experiment: digest of the configuration. Empty: only `status` will be answered.
      role: the role's name, such as "actor".
      task: its number among its replicas.
      run_id: random number of this start of the process, below 2**64.
      specs: text of the specs; empty if the role has none to compare.
      max_message_bytes: bound of one parameter set.
      security: of the channel.
    """

    def __init__(
        self,
        address: Address,
        *,
        experiment: str,
        role: str,
        task: int,
        run_id: int,
        specs: str = "",
        max_message_bytes: int = channels.DEFAULT_MAX_MESSAGE_BYTES,
        security: Security = Security(),  # noqa: B008  (immutable)
    ):
        """Connects with the first call."""
        if task < 0 or not 0 <= run_id < 1 << 64:
            raise ConfigurationError(
                f"task={task}, run_id={run_id}: a task counts from 0, a run_id is below 2**64"
            )
        max_message_bytes = channels.check_message_bytes(max_message_bytes)
        self._name, self._address = f"{role} {task}", address
        self._server_name = f"the learner at {address}"
        self._specs = specs
        self._sender = training_pb2.Sender(
            experiment=experiment, role=role, task=task, run_id=run_id
        )
        self._acknowledged_episodes = 0
        self._security, self._metadata = security, security.metadata
        self._channel = security.channel(
            address, channels.channel_options(max_message_bytes, messages.MAX_REQUEST_BYTES)
        )
        # Bytes in and out: protobuf objects are made here, where an error can be explained.
        self._methods = {
            method: self._channel.unary_unary(f"/{messages.SERVICE}/{method}")
            for method in ("Join", "GetParameters", "Report", "Status")
        }

    def join(self, timeout_secs: float, stop: threading.Event | None = None) -> None:
        """Waits for the learner to come up and checks that both sides belong together.

        Returns early if `stop` is set. Raises UnavailableError after `timeout_secs`,
        ConfigurationError if protocol version, experiment or specs differ.
        """
        stop = stop or threading.Event()
        request = training_pb2.JoinRequest(
            sender=self._sender, protocol_version=messages.PROTOCOL_VERSION, specs=self._specs
        )
        start_secs = logged_secs = time.monotonic()
        while not stop.is_set():
            left_secs = max(0.01, start_secs + timeout_secs - time.monotonic())
            try:
                self._call(
                    "Join",
                    request,
                    training_pb2.JoinReply.FromString,
                    min(_JOIN_TRY_SECS, left_secs),
                )
                return
            except UnavailableError as error:
                now_secs = time.monotonic()
                if now_secs - start_secs >= timeout_secs:
                    raise UnavailableError(
                        f"{self._name}: {self._server_name} did not come up within "
                        f"{timeout_secs:g} s; last error: {error}"
                    ) from None
                if now_secs - logged_secs >= _JOIN_LOG_SECS:
                    logged_secs = now_secs
                    waited_secs = now_secs - start_secs
                    _LOG.info(
                        "%s waits for %s (%.0f s of %.0f s)",
                        self._name,
                        self._server_name,
                        waited_secs,
                        timeout_secs,
                    )
            stop.wait(min(_JOIN_PAUSE_SECS, max(0.0, start_secs + timeout_secs - time.monotonic())))

    def parameters(
        self, have_version: int, timeout_secs: float = 10.0
    ) -> tuple[int, list[np.ndarray]] | None:
        """The learner's version and read-only arrays, or None if it has none but `have_version`.

        Args:
          have_version: what the caller has; -1 for nothing. After the learner's restart from a
            checkpoint the version that comes back can be smaller.
          timeout_secs: deadline, the transfer included.

        Raises UnavailableError, ConfigurationError.
        """
        request = training_pb2.ParametersRequest(sender=self._sender, have_version=have_version)
        return self._call("GetParameters", request, parameter_messages.read, timeout_secs)

    def report(
        self,
        *,
        frames: int = 0,
        metrics: Mapping[str, float] | None = None,
        returns: Sequence[float] | np.ndarray = (),
        lengths: Sequence[int] | np.ndarray = (),
        evaluation: Evaluation | None = None,
        items: ItemCounts = ItemCounts(0, 0),  # noqa: B008  (immutable)
        timeout_secs: float = 5.0,
    ) -> ReportReply:
        """Tells the learner how far this process is; learns whether to stop.

        After an UnavailableError give the same episodes again, with later ones behind them:
        nothing counts twice.

        Args:
          frames: training frames of this run_id so far (not since the last report).
          metrics: for people to read; None or empty keeps those of the last report.
          returns: <float32>[k], raw returns of the training episodes since the last report.
          lengths: <int64>[k], their lengths in environment frames.
          evaluation: of an evaluator.
          items: that this run_id has inserted, and trained on, so far.
          timeout_secs: deadline.

        Raises UnavailableError, ConfigurationError.
        """
        episodes = self._episodes(np.asarray(returns), np.asarray(lengths))
        try:
            request = training_pb2.ReportRequest(
                sender=self._sender,
                frames=int(frames),
                metrics={name: float(value) for name, value in (metrics or {}).items()},
                episodes=episodes,
                evaluation=evaluation and messages.evaluation_to_message(evaluation),
                items_inserted=items.inserted,
                items_sampled=items.sampled,
            )
        except (OverflowError, TypeError, ValueError) as error:
            raise ConfigurationError(f"{self._name} cannot send its report: {error}") from None
        reply = self._call("Report", request, training_pb2.ReportReply.FromString, timeout_secs)
        self._acknowledged_episodes += len(returns)
        counted = ItemCounts(reply.items_inserted, reply.items_sampled)
        return ReportReply(reply.stop, reply.reason, reply.frames, counted)

    def status(self, timeout_secs: float = 5.0) -> Status:
        """The run at a glance. Raises UnavailableError, ConfigurationError."""
        request = training_pb2.StatusRequest(sender=self._sender)
        reply = self._call("Status", request, training_pb2.StatusReply.FromString, timeout_secs)
        return messages.status_from_message(reply)

    def close(self) -> None:
        """Closes the connection; calls in progress in other threads fail. May be called twice."""
        self._security.close(self._channel)

    def _episodes(self, returns: np.ndarray, lengths: np.ndarray) -> training_pb2.Episodes:
        if returns.ndim != 1 or returns.shape != lengths.shape:
            raise ConfigurationError(
                f"{self._name} reports returns of shape {returns.shape} and lengths of shape "
                f"{lengths.shape}; both must be [k]"
            )
        skipped = max(0, len(returns) - messages.MAX_EPISODES)
        if skipped:
            _LOG.warning(
                "%s leaves out %d of %d episodes: more than one report can hold",
                self._name,
                skipped,
                len(returns),
            )
        return training_pb2.Episodes(
            first=self._acknowledged_episodes + skipped,
            returns=returns[skipped:].tolist(),
            length_frames=lengths[skipped:].astype(np.int64).tolist(),
        )

    def _call(
        self,
        method: str,
        request: protobuf.Message,
        parse: Callable[[bytes], _Reply],
        timeout_secs: float,
    ) -> _Reply:
        data = request.SerializeToString()
        usage.count_messages(self._address)
        try:
            data = self._methods[method](data, timeout=timeout_secs, metadata=self._metadata)
        except ValueError:  # what grpc raises on a channel that was closed
            raise UnavailableError(
                f"{self._name}: the connection to {self._server_name} is closed"
            ) from None
        except grpc.RpcError as error:
            raise channels.to_tfdrl_error(
                error, self._name, self._server_name, method, timeout_secs
            ) from None
        try:
            return parse(data)
        except MessageError as error:
            raise self._nonsense(method, str(error)) from None
        except protobuf.DecodeError:
            raise self._nonsense(method, f"{len(data)} bytes that cannot be parsed") from None

    def _nonsense(self, method: str, details: str) -> ConfigurationError:
        return ConfigurationError(
            f"{self._name}: {self._server_name} answered {method} with nonsense ({details}); "
            "is it a tfdrl learner of this version?"
        )
